"""From a durable submit to a command that runs, beside Slurm, Celery and procrastinate in the same run.

    python -m benchmarks.dispatch [--quick] [--json]

Starts and jobs/s are those of the real coordinator and the real agent with its process executor: the command
itself writes the time. A dispatch is a job taken in, assigned, told to one of 64 simulated agents on streams
of their own, reported as ended, and settled: each step is on the disk before it is told. A peer's is a task
taken in, taken by a worker, done and acknowledged. All take turns by rounds, and medians are compared. The
processor time beside each rate is that of all programs that took part: it tells more than the rate where the
machine has other things to do.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks import report, starts
from benchmarks.ground import Ground
from benchmarks.processes import Fleet, cpu_s, family_cpu_s
from benchmarks.queues import Peer, Round, running_celery, running_procrastinate
from benchmarks.report import Figure
from runtime.channel import open_channel
from runtime.ids import new_uuid
from tests.rig.parts import MissingError
from tests.rig.postgres import Postgres, running_postgres
from usance.v1 import market_pb2 as m
from usance.v1 import market_pb2_grpc
from usance.v1 import types_pb2 as t

T = TypeVar("T")
SUBMITS_OUTSTANDING = 64
BUDGET_MICRO = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Sizes:
    singles: int
    burst: int
    bursts: int
    dispatches: int
    dispatch_hosts: int
    rounds: int
    # Celery and procrastinate; installing them takes its time.
    has_queues: bool


FULL = Sizes(singles=60, burst=150, bursts=3, dispatches=1_000, dispatch_hosts=64, rounds=3, has_queues=True)
QUICK = Sizes(singles=10, burst=32, bursts=1, dispatches=300, dispatch_hosts=8, rounds=1, has_queues=False)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A peer, and what is asked of us beside it."""

    name: str
    bar: float
    aim: float


CELERY = Bar(name="Celery on Redis, each write synced", bar=0.7, aim=1)
CELERY_LOSING = Bar(name="Celery on Redis as it comes, not durable", bar=0.7, aim=1)
PROCRASTINATE = Bar(name="procrastinate on PostgreSQL, ours on SQLite", bar=2, aim=4)
BOTH_ON_POSTGRES = Bar(name="procrastinate, both on PostgreSQL", bar=2, aim=4)


def dispatch_round(
    folder: Path, count: int, hosts: int, server: Postgres | None = None
) -> tuple[Round, float]:
    """Jobs from submit to a (simulated) agent, all durable; and the coordinator's CPU us for one."""
    with ExitStack() as stack:
        folder.mkdir()
        database = "" if server is None else stack.enter_context(server.database())
        ground = Ground(folder=folder, database=database)
        ground.prepare(hosts)
        return round_on(ground, count, hosts, server)


def round_on(ground: Ground, count: int, hosts: int, server: Postgres | None = None) -> tuple[Round, float]:
    """The same on a market that is there already; its coordinator is started and stopped."""
    with ExitStack() as stack:
        stack.callback(ground.stop)
        pid = ground.start()
        fleet = Fleet("grpc", ground.folder, ground.hosts)
        stack.callback(fleet.stop)
        fleet.ask("open", count=hosts)
        fleet.tell("work", count=hosts, attempts=count)
        others = [fleet.pid] if server is None else [fleet.pid, server.pid]
        before, others_before = cpu_s(pid), sum(map(family_cpu_s, others))
        own, began = time.process_time(), time.monotonic()
        asyncio.run(_submit_many(ground, count))
        seconds = fleet.answer()["moment"] - began
        ours_s = cpu_s(pid) - before
        all_s = ours_s + sum(map(family_cpu_s, others)) - others_before + time.process_time() - own
        return Round(rate=count / seconds, cpu_us=all_s * 1e6 / count), ours_s * 1e6 / count


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
        figures = _told("starts", lambda: _starts(folder, sizes))
        return figures + _dispatches(folder, sizes)


def _starts(folder: Path, sizes: Sizes) -> list[Figure]:
    ours, slurm, why = starts.paces(folder, sizes.singles, sizes.burst, sizes.bursts)
    latency, rate = "submit to running ms, p50, beside Slurm srun", "jobs/s, a process each, beside Slurm"
    jobs_s = statistics.median(ours.jobs_s)
    if slurm is None:
        return [
            Figure(figure=latency, ours=ours.p50_ms, note=why),
            Figure(figure=rate, ours=jobs_s, note=why),
        ]
    note = (
        f"p99 {ours.p99_ms:.0f} ms, srun {slurm.p99_ms:.0f};"
        f" CPU {statistics.median(ours.cpu_ms):.0f} ms each, Slurm {statistics.median(slurm.cpu_ms):.0f}"
    )
    return [
        report.at_most(latency, ours.p50_ms, slurm.p50_ms, 0.5, 0.25, note),
        report.at_least(
            rate, jobs_s, statistics.median(slurm.jobs_s), 5, 10, "Slurm: one array of jobs, its best"
        ),
    ]


def _dispatches(folder: Path, sizes: Sizes) -> list[Figure]:
    ours, own_us, on_postgres = list[Round](), list[float](), list[Round]()

    def one_round(number: int, server: Postgres | None) -> tuple[Round, float]:
        what = "SQLite" if server is None else "PostgreSQL"
        place = folder / f"{what}-{number}"
        return _told(
            f"dispatches on {what}, round {number}",
            lambda: dispatch_round(place, sizes.dispatches, sizes.dispatch_hosts, server),
        )

    with ExitStack() as stack:
        peers, missing = _peers(stack, folder) if sizes.has_queues else ([], [])
        server = stack.enter_context(running_postgres(durable=True)) if _has_postgres(peers) else None
        rounds: dict[str, list[Round]] = {bar.name: [] for bar, _ in peers}
        for number in range(sizes.rounds):
            found, cpu_us = one_round(number, None)
            ours.append(found)
            own_us.append(cpu_us)
            if server is not None:
                on_postgres.append(one_round(number, server)[0])
            for bar, peer in peers:
                rounds[bar.name].append(_told(bar.name, lambda: peer(sizes.dispatches)))  # noqa: B023 - called at once
    note = f"coordinator CPU {statistics.median(own_us):.0f} us each"
    if not peers and not missing:
        return [Figure(figure="durable dispatches/s", ours=_rate(ours), note=f"{note}; --quick: no peers")]
    figures = [_beside(bar, ours, rounds[bar.name], note) for bar, _ in peers]
    if on_postgres:
        figures.append(_beside(BOTH_ON_POSTGRES, on_postgres, rounds[PROCRASTINATE.name], "durable both"))
    return [*figures, *missing]


def _has_postgres(peers: list[tuple[Bar, Peer]]) -> bool:
    return any(bar is PROCRASTINATE for bar, _ in peers)


def _beside(bar: Bar, ours: list[Round], theirs: list[Round], note: str) -> Figure:
    what, cpu = f"durable dispatches/s, beside {bar.name}", f"{_cpu_us(ours):.0f} us CPU of all programs each"
    note = f"{cpu}, the peer's {_cpu_us(theirs):.0f}; {note}"
    return report.at_least(what, _rate(ours), _rate(theirs), bar.bar, bar.aim, note)


def _rate(rounds: list[Round]) -> float:
    return statistics.median(found.rate for found in rounds)


def _cpu_us(rounds: list[Round]) -> float:
    return statistics.median(found.cpu_us for found in rounds)


def _peers(stack: ExitStack, folder: Path) -> tuple[list[tuple[Bar, Peer]], list[Figure]]:
    """Those that can be had, set up; and what is said of the others."""
    found, missing = list[tuple[Bar, Peer]](), list[Figure]()
    ways: list[tuple[Bar, Callable[[], AbstractContextManager[Peer]]]] = [
        (CELERY, lambda: running_celery(folder, durable=True)),
        (CELERY_LOSING, lambda: running_celery(folder, durable=False)),
        (PROCRASTINATE, lambda: running_procrastinate(folder)),
    ]
    for bar, running in ways:
        try:
            found.append((bar, stack.enter_context(running())))
        except MissingError as error:
            what = f"durable dispatches/s, beside {bar.name}"
            missing.append(Figure(figure=what, ours=None, note=str(error)))
    return found, missing


def _told(name: str, part: Callable[[], T]) -> T:
    found = part()
    print(f"{name} done", file=sys.stderr, flush=True)
    return found


def main() -> None:
    given = report.arguments(__doc__).parse_args()
    report.show("dispatch", measure(QUICK if given.quick else FULL), as_json=given.json)


if __name__ == "__main__":
    main()
