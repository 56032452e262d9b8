"""What one more job costs in a market that has had many: on both databases, beside the same market when new.

    python -m benchmarks.growth [--quick] [--json]

A history is made of jobs that ran through this very coordinator, copied by the database under new names, ten
usage records each. Then a round of dispatches and some questions of a buyer are timed, in turn on the new
market and on the old one. The ledger's own growth is a part of `benchmarks.ledger`. Beside the times stand
the plans of the statements that are used again and again: none may read a whole table of what grows.
"""

import asyncio
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, text

from benchmarks import report
from benchmarks.dispatch import round_on
from benchmarks.ground import Ground
from benchmarks.report import Figure
from coordinator import app
from coordinator.services import audit
from coordinator.store.database import Database
from coordinator.store.ports import Transaction
from coordinator.store.tables import metadata
from runtime.channel import open_channel
from tests.rig.postgres import Postgres, running_postgres
from usance.v1 import market_pb2 as m
from usance.v1 import market_pb2_grpc

BAR, AIM = 1.5, 1.1
RECORDS_A_JOB = 10
JUDGED_FROM = 50_000
_GROWING = ("job", "attempt", "bill_line", "event", "log_chunk")
# One SQL for both: the ids of what is copied get a prefix, by which they are older than all others.
_NUMBERS = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < :copies)"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    histories: tuple[int, ...]
    dispatches: int
    hosts: int
    rounds: int


FULL = Sizes(histories=(1_000, 100_000, 1_000_000), dispatches=500, hosts=32, rounds=3)
QUICK = Sizes(histories=(500,), dispatches=40, hosts=4, rounds=1)


@dataclass(frozen=True, kw_only=True)
class Cost:
    cpu_us: float
    asked_ms: float


def measure(sizes: Sizes) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="usance-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running_postgres(durable=True) as server:
            for what, of in (("SQLite", None), ("PostgreSQL", server)):
                yield from _grown(folder / what, what, sizes, of)


def _grown(folder: Path, what: str, sizes: Sizes, server: Postgres | None) -> Iterator[Figure]:
    folder.mkdir()
    with ExitStack() as stack:
        grounds = dict[int, Ground]()
        for jobs in (0, *sizes.histories):
            database = "" if server is None else stack.enter_context(server.database())
            place = folder / str(jobs)
            place.mkdir()
            grounds[jobs] = ground = Ground(folder=place, database=database)
            ground.prepare(sizes.hosts)
            round_on(ground, sizes.dispatches, sizes.hosts, server)
            if jobs:
                add_history(ground, jobs)
            print(f"{what} with {jobs:,} jobs is ready", file=sys.stderr, flush=True)
        costs: dict[int, list[Cost]] = {jobs: [] for jobs in grounds}
        for _ in range(sizes.rounds):
            for jobs, ground in grounds.items():
                costs[jobs].append(_cost(ground, sizes, server))
        for jobs in sizes.histories:
            yield from _beside(f"{what}, {jobs:,} jobs", costs[jobs], costs[0])
            scans = whole_reads(grounds[jobs])
            yield Figure(
                figure=f"tables read whole by statements of a round, {what}, {jobs:,} jobs",
                ours=len(scans), bar="0", aim="0", note="; ".join(scans),
                # PostgreSQL is right to read what is small from end to end.
                ok=not scans if jobs >= JUDGED_FROM or server is None else None,
            )  # fmt: skip


def _beside(what: str, grown: list[Cost], new: list[Cost]) -> Iterator[Figure]:
    for name, of in (
        ("coordinator CPU us a dispatch", lambda cost: cost.cpu_us),
        ("a buyer's list, show and bill ms", lambda cost: cost.asked_ms),
    ):
        ours, floor = (statistics.median(map(of, costs)) for costs in (grown, new))
        note = f"{RECORDS_A_JOB} usage records each; floor: the same market when new"
        yield report.at_most(f"{name}, {what}", ours, floor, BAR, AIM, note)


def _cost(ground: Ground, sizes: Sizes, server: Postgres | None) -> Cost:
    _, cpu_us = round_on(ground, sizes.dispatches, sizes.hosts, server)
    ground.start()
    try:
        return Cost(cpu_us=cpu_us, asked_ms=asyncio.run(_ask(ground)))
    finally:
        ground.stop()


async def _ask(ground: Ground) -> float:
    """The newest page of jobs, one of them, and its bill."""
    metadata = (("authorization", f"Bearer {ground.buyer_token}"),)
    async with open_channel(ground.market, (ground.data / "ca.pem").read_bytes()) as channel:
        stub = market_pb2_grpc.MarketServiceStub(channel)
        times_ms = []
        for _ in range(20):
            began = time.perf_counter()
            page = await stub.ListJobs(m.ListJobsRequest(), metadata=metadata)
            job_id = page.jobs[0].job_id
            await stub.GetJob(m.GetJobRequest(job_id=job_id), metadata=metadata)
            await stub.GetBill(m.GetBillRequest(job_id=job_id), metadata=metadata)
            times_ms.append(1_000 * (time.perf_counter() - began))
    return statistics.median(times_ms)


def add_history(ground: Ground, jobs: int) -> None:
    """Make of the jobs that have ended here so many more."""
    engine = app.open_database(ground.settings)
    try:
        with engine.begin() as connection:
            connection.execute(text("CREATE TEMPORARY TABLE model AS SELECT id FROM job WHERE ended_ms > 0"))
            models = connection.execute(text("SELECT count(*) FROM model")).scalar_one()
            copies = -(-jobs // models)
            # `job_X` becomes `job_00_N_X`: ids begin with their time, and no time of ours begins so early.
            _copy(connection, "job", copies, {"id": _older("id")}, "id IN (SELECT id FROM model)")
            own = {"id": _older("id"), "job_id": _older("job_id")}
            _copy(connection, "attempt", copies, own, "job_id IN (SELECT id FROM model)")
            numbers = {
                # Below all that there are, so that new ones go on as before.
                "number": "-t.number - CAST(n.n AS BIGINT) * 100000000",
                "job_id": _older("job_id"),
                "attempt_id": f"CASE WHEN attempt_id = '' THEN '' ELSE {_older('attempt_id')} END",
            }
            _copy(connection, "event", copies, numbers, "job_id IN (SELECT id FROM model)")
            _add_records(connection)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
    finally:
        engine.dispose()


def _older(column: str) -> str:
    place = 5
    return f"substr(t.{column}, 1, {place - 1}) || '00_' || n.n || '_' || substr(t.{column}, {place})"


def _copy(connection: Connection, table: str, copies: int, changed: dict[str, str], which: str) -> None:
    names = [column.name for column in metadata.tables[table].columns]
    values = ", ".join(changed.get(name, f"t.{name}") for name in names)
    connection.execute(
        text(
            f"INSERT INTO {table} ({', '.join(names)}) {_NUMBERS}"
            f" SELECT {values} FROM {table} t CROSS JOIN n WHERE t.{which}"
        ),
        {"copies": copies},
    )


def _add_records(connection: Connection) -> None:
    """Of attempts that have none: time that was recorded and never witnessed, so that none of it is money."""
    nothing = "x'00'" if connection.dialect.name == "sqlite" else r"'\x00'::bytea"
    connection.execute(
        text(
            "INSERT INTO bill_line (attempt_id, number, start_ms, end_ms, gpus, previous_digest, digest,"
            " witnessed_ms, billed_through_ms, charge_micro, fee_micro, earning_micro, transfer_id)"
            f" {_NUMBERS} SELECT t.id, n.n, (n.n - 1) * 1000, n.n * 1000, '[]', {nothing}, {nothing},"
            " 0, 0, 0, 0, 0, '' FROM attempt t CROSS JOIN n WHERE t.id LIKE 'att\\_00\\_%' ESCAPE '\\'"
        ),
        {"copies": RECORDS_A_JOB},
    )


def whole_reads(ground: Ground) -> list[str]:
    """Of the statements that passes and calls use again and again, those that read a growing table whole."""
    engine = app.open_database(ground.settings)
    said: list[tuple[str, Any]] = []
    store = Database(engine, lambda _: None)
    try:
        event.listen(engine, "before_cursor_execute", lambda *given: said.append((given[2], given[3])))
        for look in _LOOKS:
            store.read(partial(look, ground.buyer_id)).result()
        asked = [pair for pair in said if pair[0].lstrip().startswith("SELECT")]
        kind, told = ("EXPLAIN QUERY PLAN", _SQLITE_WHOLE) if engine.dialect.name == "sqlite" else _POSTGRES
        with engine.connect() as connection:
            plans = [
                "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"{kind} {statement}", values))
                for statement, values in asked
            ]
        return sorted({found.group(0) for plan in plans for found in told.finditer(plan)})
    finally:
        store.close()


# A partial index of what is live may be gone through, and an index from where one is.
_WHOLE = "|".join(_GROWING)
_SQLITE_WHOLE = re.compile(rf"^SCAN (?:{_WHOLE})$", re.MULTILINE)
_POSTGRES = ("EXPLAIN", re.compile(rf"Seq Scan on (?:{_WHOLE})\b"))
_LOOKS: tuple[Callable[[str, Transaction], object], ...] = (
    lambda _, tx: tx.attempts_awaited("", 500),
    lambda _, tx: tx.queue_after("", 500),
    lambda _, tx: tx.live_attempts("", 500),
    lambda buyer, tx: tx.jobs_of(buyer, live_only=False, before_id="", limit=50),
    lambda _, tx: audit.sample(tx, ""),
)


def main() -> None:
    given = report.arguments(__doc__).parse_args()
    report.show("growth", list(measure(QUICK if given.quick else FULL)), as_json=given.json)


if __name__ == "__main__":
    main()
