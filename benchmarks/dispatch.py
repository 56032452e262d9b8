"""From a durable submit to a command that runs, beside Slurm, Celery and procrastinate in the same run.

    python -m benchmarks.dispatch [--quick] [--json]

Latency and jobs/s are those of the real coordinator and the real agent with its process executor: the
command itself writes the time. Dispatches are those of the coordinator to simulated agents, with no process.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks import report
from benchmarks.ground import Ground
from benchmarks.processes import Fleet, cpu_s
from benchmarks.queues import celery_rate, procrastinate_rate
from benchmarks.report import Figure
from benchmarks.slurm import CPUS, Slurm, running_slurm
from cli.client.market import Market, open_market
from cli.connection import Connection
from cli.model import Isolation, JobSpec
from cli.wishes import GpuRequest
from runtime.channel import open_channel
from runtime.ids import new_uuid
from tests.rig.parts import MissingError, wait_until
from tests.support.agent_terms import AgentTerms
from tests.support.market import WholeMarket
from usance.v1 import market_pb2 as m
from usance.v1 import market_pb2_grpc
from usance.v1 import types_pb2 as t

T = TypeVar("T")
SUBMITTERS = 8
SUBMITS_OUTSTANDING = 64
BUDGET_MICRO = 1_000_000
DONE_S = 120.0
NS_PER_MS = 1_000_000
# Slurm looks at its queue once a second: without a random phase every submit would meet the same moment.
PHASE_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Sizes:
    singles: int
    burst: int
    dispatches: int
    dispatch_hosts: int
    # Celery and procrastinate; installing them takes its time.
    queue_tasks: int


FULL = Sizes(singles=60, burst=300, dispatches=2_000, dispatch_hosts=64, queue_tasks=2_000)
QUICK = Sizes(singles=10, burst=32, dispatches=300, dispatch_hosts=8, queue_tasks=0)


def note_time(folder: Path, name: str) -> list[str]:
    """A command that writes when it runs."""
    return ["/bin/sh", "-c", f"date +%s%N > {folder}/{name}.part && mv {folder}/{name}.part {folder}/{name}"]


def _await_all(folder: Path, count: int) -> None:
    wait_until(lambda: len(list(folder.glob("*[0-9]"))) >= count, f"{count} commands ran", deadline_s=DONE_S)


def _times_ns(folder: Path) -> list[int]:
    return sorted(int(path.read_text()) for path in folder.glob("*[0-9]"))


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a system that starts a process per job does."""

    p50_ms: float
    p99_ms: float
    jobs_s: float


def usance_pace(folder: Path, sizes: Sizes) -> Pace:
    market = WholeMarket(folder=folder / "market")
    try:
        market.start()
        market.open_account("buyer", "buyer", deposit="100000")
        market.open_account("seller", "seller")
        market.add_agent("one", "seller", AgentTerms(trusted_accounts=("buyer",), simulated_gpus=CPUS))
        environment = market.environment("buyer")
        connection = Connection(
            target=market.market_address,
            authority_pem=Path(environment["USANCE_CA"]).read_bytes(),
            token=environment["USANCE_TOKEN"],
        )
        return asyncio.run(_usance_pace(connection, folder, sizes))
    finally:
        market.stop()


async def _usance_pace(connection: Connection, folder: Path, sizes: Sizes) -> Pace:
    singles, burst = folder / "singles", folder / "burst"
    singles.mkdir()
    burst.mkdir()
    phase = random.Random(1)
    async with open_market(connection) as market:
        waits_ms = []
        for number in range(sizes.singles):
            await asyncio.sleep(phase.uniform(0, PHASE_S))
            asked_ns = time.time_ns()
            await _submit(market, note_time(singles, str(number)))
            await asyncio.to_thread(_await_all, singles, number + 1)
            waits_ms.append((int((singles / str(number)).read_text()) - asked_ns) / NS_PER_MS)
        asked_ns = time.time_ns()

        async def submitter(first: int) -> None:
            for number in range(first, sizes.burst, SUBMITTERS):
                await _submit(market, note_time(burst, str(number)))

        await asyncio.gather(*(submitter(first) for first in range(SUBMITTERS)))
        await asyncio.to_thread(_await_all, burst, sizes.burst)
    return _pace(waits_ms, sizes.burst, (_times_ns(burst)[-1] - asked_ns) / 1e9)


def _pace(waits_ms: list[float], count: int, seconds: float) -> Pace:
    waits_ms.sort()
    return Pace(
        p50_ms=statistics.median(waits_ms),
        p99_ms=waits_ms[min(len(waits_ms) - 1, len(waits_ms) * 99 // 100)],
        jobs_s=count / seconds,
    )


async def _submit(market: Market, command: list[str]) -> None:
    spec = JobSpec(
        name="nothing",
        image="",
        command=tuple(command),
        env=(),
        gpus=GpuRequest(count=1),
        isolation_min=Isolation.PROCESS,
        gpu_hour_price_micro_max=0,
        budget_micro=BUDGET_MICRO,
        run_ms_max=0,
        stop_grace_ms=None,
        retries_max=0,
    )
    await market.submit_job(spec, str(new_uuid()))


def slurm_pace(folder: Path, sizes: Sizes) -> Pace:
    """srun for the latency, one array of jobs for the rate: each is Slurm's best."""
    singles, burst = folder / "srun", folder / "array"
    singles.mkdir(parents=True)
    burst.mkdir()
    phase, waits_ms = random.Random(2), []
    with running_slurm(folder / "slurm") as slurm:
        for number in range(sizes.singles):
            time.sleep(phase.uniform(0, PHASE_S))
            asked_ns = time.time_ns()
            slurm.run("srun", "--cpus-per-task=1", *note_time(singles, str(number)))
            waits_ms.append((int((singles / str(number)).read_text()) - asked_ns) / NS_PER_MS)
        return _pace(waits_ms, sizes.burst, _slurm_burst_s(slurm, burst, sizes.burst))


def _slurm_burst_s(slurm: Slurm, folder: Path, count: int) -> float:
    script = folder / "job.sh"
    command = note_time(folder, "$SLURM_ARRAY_TASK_ID")[2]
    script.write_text(f"#!/bin/sh\n{command}\n")
    asked_ns = time.time_ns()
    slurm.run("sbatch", f"--array=0-{count - 1}", "--cpus-per-task=1", "--output=/dev/null", str(script))
    _await_all(folder, count)
    return (_times_ns(folder)[-1] - asked_ns) / 1e9


def dispatch_rate(folder: Path, sizes: Sizes) -> tuple[float, float]:
    """Jobs a second from submit to a (simulated) agent, all durable; the coordinator's CPU us for one."""
    with ExitStack() as stack:
        folder.mkdir()
        ground = Ground(folder=folder)
        ground.prepare(sizes.dispatch_hosts)
        stack.callback(ground.stop)
        pid = ground.start()
        fleet = Fleet("grpc", folder, ground.hosts)
        stack.callback(fleet.stop)
        fleet.ask("open", count=sizes.dispatch_hosts)
        fleet.tell("work", count=sizes.dispatch_hosts, attempts=sizes.dispatches)
        before, began = cpu_s(pid), time.monotonic()
        asyncio.run(_submit_many(ground, sizes.dispatches))
        seconds = fleet.answer()["moment"] - began
        return sizes.dispatches / seconds, (cpu_s(pid) - before) * 1e6 / sizes.dispatches


async def _submit_many(ground: Ground, count: int) -> None:
    authority_pem = (ground.data / "ca.pem").read_bytes()
    metadata = (("authorization", f"Bearer {ground.buyer_token}"),)
    spec = t.JobSpec(
        name="nothing",
        image="example.org/image@sha256:" + "0" * 64,
        command=["true"],
        gpus=t.GpuRequest(count=1),
        budget_micro=BUDGET_MICRO,
    )
    async with open_channel(ground.market, authority_pem) as channel:
        stub = market_pb2_grpc.MarketServiceStub(channel)

        async def submitter(share: int) -> None:
            for _ in range(share):
                request = m.SubmitJobRequest(request_id=str(new_uuid()), spec=spec)
                await stub.SubmitJob(request, metadata=metadata)

        shares = [
            count // SUBMITS_OUTSTANDING + (i < count % SUBMITS_OUTSTANDING)
            for i in range(SUBMITS_OUTSTANDING)
        ]
        await asyncio.gather(*(submitter(share) for share in shares))


def measure(sizes: Sizes) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="usance-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        ours = _told("usance", lambda: usance_pace(folder, sizes))
        figures = _beside_slurm(ours, lambda: _told("Slurm", lambda: slurm_pace(folder / "peer", sizes)))
        rate, cpu_us = _told("dispatches", lambda: dispatch_rate(folder / "dispatch", sizes))
        peers: list[tuple[str, Callable[[Path, int], float], float, float]] = [
            ("Celery on Redis", celery_rate, 0.7, 1),
            ("procrastinate on PostgreSQL", procrastinate_rate, 2, 4),
        ]
        for peer_name, peer, bar, aim in peers:
            figures.append(
                _beside_queue(peer_name, peer, rate, cpu_us, (bar, aim), folder, sizes.queue_tasks)
            )
    return figures


def _beside_slurm(ours: Pace, peer: Callable[[], Pace]) -> list[Figure]:
    latency, rate = "submit to running ms, p50, beside Slurm srun", "jobs/s, a process each, beside Slurm"
    try:
        slurm = peer()
    except MissingError as missing:
        return [
            Figure(figure=latency, ours=ours.p50_ms, note=str(missing)),
            Figure(figure=rate, ours=ours.jobs_s, note=str(missing)),
        ]
    return [
        report.at_most(
            latency,
            ours.p50_ms,
            slurm.p50_ms,
            0.5,
            0.25,
            f"p99 {ours.p99_ms:.0f} ms; srun {slurm.p99_ms:.0f}",
        ),
        report.at_least(rate, ours.jobs_s, slurm.jobs_s, 5, 10, "Slurm: one array of jobs"),
    ]


def _beside_queue(
    name: str,
    peer: Callable[[Path, int], float],
    rate: float,
    cpu_us: float,
    bars: tuple[float, float],
    folder: Path,
    tasks: int,
) -> Figure:
    what, note = f"durable dispatches/s, beside {name}", f"coordinator CPU {cpu_us:.0f} us each"
    if not tasks:
        return Figure(figure=what, ours=rate, note=f"{note}; left out by --quick: {name}")
    try:
        floor = _told(name, lambda: peer(folder, tasks))
    except MissingError as missing:
        return Figure(figure=what, ours=rate, note=f"{note}; {missing}")
    return report.at_least(what, rate, floor, *bars, note)


def _told(name: str, part: Callable[[], T]) -> T:
    found = part()
    print(f"{name} done", file=sys.stderr, flush=True)
    return found


def main() -> None:
    given = report.arguments(__doc__).parse_args()
    report.show("dispatch", measure(QUICK if given.quick else FULL), as_json=given.json)


if __name__ == "__main__":
    main()
