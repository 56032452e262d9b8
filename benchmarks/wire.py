"""The wire: heartbeats, reconnecting, and usage to money, beside what the same costs without a market.

    python -m benchmarks.wire [--quick] [--json]

One machine holds the agents, the floors and the coordinator, so the rates are what is left of it for one
side; processor time per operation and the ratios are what to trust.
"""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from benchmarks import report
from benchmarks.ground import BUDGET_MICRO, Ground
from benchmarks.handover import planned
from benchmarks.processes import Fleet, Floor, cpu_s, family_cpu_s, rss_bytes
from benchmarks.report import Figure
from ledger.book import open_accounts, post
from ledger.chart import earnings, wallet
from ledger.engine import make_engine
from ledger.entries import capture, deposit, hold
from runtime.ids import derived_uuid
from tests.rig.parts import MissingError
from tests.rig.postgres import Postgres, running_postgres

OUTSTANDING = 200
DOWN_S = 2.0
# Records of each job in a message, and so many messages of each agent.
USAGE_SHAPES = ((1, 20), (16, 2))
# Records under way: some shares of a commit's.
USAGE_OUTSTANDING = 10_000
# Beside one for each agent.
FILES_MORE = 200


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything."""

    saturating: int
    rounds: int
    round_s: float
    paced: int
    paced_s: float
    interval_s: float
    returning: int
    moving: int
    usage_hosts: int
    jobs_per_host: int
    usage_s: float
    ledger_batches: int


FULL = Sizes(
    saturating=2_000, rounds=3, round_s=5, paced=10_000, paced_s=30, interval_s=10, returning=5_000,
    moving=1_000, usage_hosts=1_000, jobs_per_host=10, usage_s=15, ledger_batches=60,
)  # fmt: skip
QUICK = Sizes(
    saturating=100, rounds=1, round_s=2, paced=200, paced_s=3, interval_s=1, returning=100, moving=50,
    usage_hosts=50, jobs_per_host=4, usage_s=3, ledger_batches=10,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Side:
    """A server, and the agents that speak with it."""

    name: str
    pid: int
    fleet: Fleet


@contextmanager
def sides(folder: Path, hosts: int, jobs_per_host: int, names: tuple[str, ...]) -> Iterator[list[Side]]:
    """Servers side by side, each with a fleet that is not connected yet."""
    with ExitStack() as stack:
        ground = Ground(folder=folder)
        ground.prepare(hosts, jobs_per_host)
        found = []
        for name in names:
            if name == "coordinator":
                stack.callback(ground.stop)
                pid, target = ground.start(), ground.hosts
            else:
                floor = Floor(name, folder)
                stack.callback(floor.stop)
                pid, target = floor.pid, floor.target
            fleet = Fleet("bare" if name == "bare" else "grpc", folder, target)
            stack.callback(fleet.stop)
            found.append(Side(name=name, pid=pid, fleet=fleet))
        yield found


def saturated(folder: Path, sizes: Sizes, jobs_per_host: int) -> list[Figure]:
    """Processor time of the server for a heartbeat and its answer, all three in turn."""
    count, cpu_us = sizes.saturating, dict[str, list[float]]()
    with sides(folder, count, jobs_per_host, ("bare", "grpc", "coordinator")) as found:
        for side in found:
            _open(side, count)
        for _ in range(sizes.rounds):
            for side in found:
                before = cpu_s(side.pid)
                done = side.fleet.ask("closed", count=count, seconds=sizes.round_s, outstanding=OUTSTANDING)
                spent_us = (cpu_s(side.pid) - before) * 1e6 / done["count"]
                cpu_us.setdefault(side.name, []).append(spent_us)
    ours, bare, grpc_alone = (statistics.median(cpu_us[name]) for name in ("coordinator", "bare", "grpc"))
    what = "idle host" if not jobs_per_host else f"host with {jobs_per_host} running job"
    note = f"gRPC alone {grpc_alone:.0f} us, {grpc_alone / bare:.1f} x bare; {count} agents"
    return [report.at_most(f"CPU us per heartbeat, {what}", ours, bare, 6, 4, note)]


def paced(folder: Path, sizes: Sizes) -> list[Figure]:
    """Latency at a calm rate, and the memory that a connected agent costs."""
    count, p99_ms, kilobytes = sizes.paced, dict[str, float](), dict[str, float]()
    cpu_percent, p50_ms = dict[str, float](), dict[str, float]()
    for name in ("bare", "grpc", "coordinator"):
        with sides(folder / name, count, 0, (name,)) as (side,):
            before = rss_bytes(side.pid)
            _open(side, count)
            cpu_before = cpu_s(side.pid)
            done = side.fleet.ask("paced", count=count, seconds=sizes.paced_s, interval_s=sizes.interval_s)
            cpu_percent[name] = (cpu_s(side.pid) - cpu_before) / done["seconds"] * 100
            kilobytes[name] = (rss_bytes(side.pid) - before) / count / 1024
            p99_ms[name], p50_ms[name] = done["p99_ms"], done["p50_ms"]
    rate = count / sizes.interval_s
    note = "; ".join(
        f"{name} p50 {p50_ms[name]:.2f} ms, {cpu_percent[name]:.0f} % of a core" for name in p50_ms
    )
    latency = report.at_most(
        f"heartbeat p99 ms, {count} agents, {rate:.0f}/s", p99_ms["coordinator"], p99_ms["bare"], 10, 6, note
    )
    memory = report.at_most(
        "memory KB per agent, gRPC alone beside", kilobytes["coordinator"], kilobytes["grpc"], 1.5, 1.25,
        f"{count} agents",
    )  # fmt: skip
    return [
        latency,
        Figure(
            figure="heartbeat p99 ms, absolute", ours=p99_ms["coordinator"], bar="< 20", aim="< 10",
            ok=p99_ms["coordinator"] < 20,
        ),
        memory,
    ]  # fmt: skip


def returning(folder: Path, sizes: Sizes) -> list[Figure]:
    """All agents back after SIGKILL, counted from the coordinator's listening."""
    count = sizes.returning
    with sides(folder / "bare", count, 0, ("bare",)) as (side,):
        bare_s = side.fleet.ask("open", count=count)["seconds"]
    with ExitStack() as stack:
        (folder / "killed").mkdir()
        ground = Ground(folder=folder / "killed")
        ground.prepare(count)
        stack.callback(ground.stop)
        pid = ground.start()
        fleet = Fleet("grpc", ground.folder, ground.hosts)
        stack.callback(fleet.stop)
        _open(Side(name="coordinator", pid=pid, fleet=fleet), count)
        fleet.tell("storm", count=count)
        assert ground.process is not None
        ground.process.kill()
        ground.process.wait()
        time.sleep(DOWN_S)
        pid = ground.start()
        listening = time.monotonic()
        back = fleet.answer()
        killed_s = back["all"] - listening
        cpu_ms = cpu_s(pid) * 1e3 / count
    return [
        report.at_most(
            f"s until {count} agents are back after SIGKILL", killed_s, bare_s, 2, 1.5,
            f"with the agents' back-off of 1 to 10 s; half after {back['half'] - listening:.1f} s;"
            f" server CPU {cpu_ms:.2f} ms each",
        ),
    ]  # fmt: skip


def usage(folder: Path, sizes: Sizes) -> list[Figure]:
    """Usage records charged and committed on PostgreSQL, beside what its ledger takes in batches."""
    what = f"usage records/s, {sizes.usage_hosts * sizes.jobs_per_host} jobs, PostgreSQL"
    try:
        with running_postgres(durable=True) as server:
            return _usage(what, folder, sizes, server)
    except MissingError as missing:
        return [Figure(figure=what, ours=None, note=str(missing))]


def _usage(what: str, folder: Path, sizes: Sizes, server: Postgres) -> list[Figure]:
    with ExitStack() as stack:
        server_pid = int((server.socket_folder.parent / "data" / "postmaster.pid").read_text().split()[0])
        ledger = _ledger_pace(stack.enter_context(server.database()), sizes, server_pid)
        ground = Ground(folder=folder, database=stack.enter_context(server.database()))
        ground.prepare(sizes.usage_hosts, sizes.jobs_per_host)
        stack.callback(ground.stop)
        pid = ground.start()
        fleet = Fleet("grpc", folder, ground.hosts)
        stack.callback(fleet.stop)
        _open(Side(name="coordinator", pid=pid, fleet=fleet), sizes.usage_hosts)
        figures = []
        # One record of each of its jobs is what a calm agent sends; after a cut it has many to tell.
        for size, messages in USAGE_SHAPES:
            records_each = size * sizes.jobs_per_host
            fleet.ask("prepare", count=sizes.usage_hosts, messages=messages, size=size)
            before, database_before = cpu_s(pid), family_cpu_s(server_pid)
            done = fleet.ask(
                "usage", count=sizes.usage_hosts, seconds=sizes.usage_s,
                outstanding=max(1, USAGE_OUTSTANDING // records_each),
            )  # fmt: skip
            records = done["count"]
            ours_us = (cpu_s(pid) - before) * 1e6 / records
            database_us = (family_cpu_s(server_pid) - database_before) * 1e6 / records
            note = f"{records_each} records a message, answered in {done['p50_ms']:.0f} ms (p50)"
            rate = records / done["seconds"]
            name = f"{what}, {size} of each"
            figures.append(report.at_least(name, rate, ledger.rate, 0.4, 0.7, note))
            figures.append(
                Figure(
                    figure=f"CPU us a usage record, {size} of each",
                    ours=ours_us + database_us,
                    floor=ledger.cpu_us,
                    ratio=(ours_us + database_us) / ledger.cpu_us,
                    note=f"coordinator {ours_us:.0f}, PostgreSQL {database_us:.0f}; the ledger beside",
                )
            )
    return figures


@dataclass(frozen=True, kw_only=True)
class LedgerPace:
    rate: float
    # Of the caller and of PostgreSQL together.
    cpu_us: float


def _ledger_pace(url: str, sizes: Sizes, server_pid: int) -> LedgerPace:
    """Captures a second in batches of 1000, spread over as many jobs, by the ledger alone."""
    jobs = [f"job_{number}" for number in range(sizes.usage_hosts * sizes.jobs_per_host)]
    engine = make_engine(url)
    try:
        from coordinator.store.migrate import upgrade

        upgrade(engine)
        with engine.begin() as connection:
            open_accounts(connection, [wallet("acct_buyer"), earnings("acct_seller")], 1)
            money = deposit(
                transfer_id=derived_uuid("deposit"), account_id="acct_buyer", amount_micro=10**15, event_ms=1,
                reason="a benchmark's",
            )  # fmt: skip
            assert post(connection, [money], 1)[0].ok
            for start in range(0, len(jobs), 1_000):
                holds = [
                    hold(
                        transfer_id=derived_uuid("hold", job), account_id="acct_buyer", job_id=job,
                        amount_micro=min(BUDGET_MICRO, 10**9), event_ms=1,
                    )
                    for job in jobs[start : start + 1_000]
                ]  # fmt: skip
                assert all(outcome.ok for outcome in post(connection, holds, 1))
        return _post_batches(engine, jobs, sizes.ledger_batches, server_pid)
    finally:
        engine.dispose()


def _post_batches(engine: Engine, jobs: list[str], batches: int, server_pid: int) -> LedgerPace:
    made = [
        [
            capture(
                transfer_id=derived_uuid("capture", batch, i), job_id=jobs[(batch * 1_000 + i) % len(jobs)],
                seller_id="acct_seller", amount_micro=1_000, fee_micro=50, event_ms=1,
            )
            for i in range(1_000)
        ]
        for batch in range(batches)
    ]  # fmt: skip
    began, spent_s = time.monotonic(), time.process_time() + family_cpu_s(server_pid)
    for batch in made:
        with engine.begin() as connection:
            assert all(outcome.ok for outcome in post(connection, batch, 1))
    count, seconds = batches * 1_000, time.monotonic() - began
    cpu_s_in_all = time.process_time() + family_cpu_s(server_pid) - spent_s
    return LedgerPace(rate=count / seconds, cpu_us=cpu_s_in_all * 1e6 / count)


def _open(side: Side, count: int) -> None:
    done = side.fleet.ask("open", count=count)
    if done["failed"]:
        raise RuntimeError(f"{side.name}: {done['failed']} of {count} agents did not get in")


def _allow_files(count: int) -> None:
    """A connection is a file; the programs we start inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + FILES_MORE:
        raise SystemExit(
            f"{count} agents need a limit of open files above {count + FILES_MORE}; it is {hard}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measure(sizes: Sizes, only: str) -> list[Figure]:
    parts: dict[str, Callable[[Path], list[Figure]]] = {
        "idle": lambda folder: saturated(folder, sizes, 0),
        "busy": lambda folder: saturated(folder, sizes, 1),
        "paced": lambda folder: paced(folder, sizes),
        "returning": lambda folder: returning(folder, sizes),
        "planned": lambda folder: planned(folder, sizes.moving),
        "usage": lambda folder: usage(folder, sizes),
    }
    figures = []
    for name, part in parts.items():
        if only in ("", name):
            with tempfile.TemporaryDirectory(prefix="usance-bench-") as folder:
                figures += part(Path(folder))
            print(f"{name} done", file=sys.stderr, flush=True)
    return figures


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--only", default="", help="one part: idle, busy, paced, returning, planned or usage")
    given = parser.parse_args()
    sizes = QUICK if given.quick else FULL
    _allow_files(sizes.paced)
    report.show("wire", measure(sizes, given.only), as_json=given.json)


if __name__ == "__main__":
    main()
