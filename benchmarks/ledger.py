"""The ledger beside pgbench's TPC-B, on the same PostgreSQL, turn by turn in one run.

One capture (hold to earnings and fee, idempotent, three running balances) is the logical work of one TPC-B
transaction (three balances and a row). All is posted through `ledger.book.post` with durable commits.
"""

import asyncio
import gc
import itertools
import random
import re
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from sqlalchemy import Engine, text

from benchmarks import report
from benchmarks.report import Figure
from coordinator.__main__ import OLDER_AFTER, OLDEST_AFTER, YOUNG_MAX
from ledger import audit, book, chart, entries, seal, tables
from ledger.engine import make_engine, reading
from ledger.entries import Transfer
from ledger.group import GroupCommit
from tests.rig.parts import find_program
from tests.rig.postgres import Postgres, running_postgres

JOBS, SELLERS, ASSETS, CALLERS = 10_000, 100, 1_000, 64
PGBENCH_CLIENTS = (1, 4, 8)


@dataclass(frozen=True, kw_only=True)
class Size:
    rounds: int
    seconds: float
    page_transfers: int


QUICK = Size(rounds=2, seconds=1, page_transfers=100_000)
FULL = Size(rounds=5, seconds=5, page_transfers=10_000_000)


@dataclass
class Seen:
    """What the rounds measured; every ratio is within one round."""

    ratios: dict[str, list[float]] = field(default_factory=dict)
    ours: dict[str, list[float]] = field(default_factory=dict)
    floors: dict[str, list[float]] = field(default_factory=dict)

    def note(self, name: str, ours: float, floor: float, ratio: float | None = None) -> None:
        self.ours.setdefault(name, []).append(ours)
        self.floors.setdefault(name, []).append(floor)
        self.ratios.setdefault(name, []).append(ours / floor if ratio is None else ratio)

    def figure(self, name: str, bar: float, aim: float, *, lower_is_better: bool = False) -> Figure:
        ours, floor = statistics.median(self.ours[name]), statistics.median(self.floors[name])
        return figure(
            name, ours, floor, statistics.median(self.ratios[name]), bar, aim, at_most=lower_is_better
        )


def figure(
    name: str,
    ours: float,
    floor: float,
    ratio: float,
    bar: float,
    aim: float,
    *,
    at_most: bool,
    note: str = "",
) -> Figure:
    """A ratio that is the median of rounds, where the two numbers beside it are medians of their own."""
    sign, ok = ("<=", ratio <= bar) if at_most else (">=", ratio >= bar)
    return Figure(
        figure=name, ours=ours, floor=floor, ratio=ratio, bar=f"{sign} {bar:g} x",
        aim=f"{sign} {aim:g} x", ok=ok,
        note=note,
    )  # fmt: skip


class Market:
    """A ledger with held jobs, and captures for ever after."""

    def __init__(self, url: str, *, jobs: int = JOBS, sellers: int = SELLERS, assets: int = 1) -> None:
        self.engine = make_engine(url)
        tables.create_all(self.engine)
        self._jobs, self._sellers, self._assets = jobs, sellers, assets
        self._number = itertools.count(1)
        self._dice = random.Random(1)
        names = [self._asset(n) for n in range(assets)]
        wallets = [chart.wallet("buyer", asset) for asset in names]
        earned = [chart.earnings(f"seller{n % sellers}", self._asset(n)) for n in range(max(sellers, assets))]
        with self.engine.begin() as conn:
            book.open_accounts(conn, [*wallets, *earned], 1)
            deposits = [
                Transfer(id=self._id(), kind=entries.TransferKind.DEPOSIT, debit=self._code("issuance", n),
                         credit=wallets[n], amount_micro=10**15 // assets, event_ms=1)
                for n in range(assets)
            ]  # fmt: skip
            book.post(conn, deposits, 1)
        for first in range(0, jobs, 1_000):
            with self.engine.begin() as conn:
                book.post(conn, [self._hold(n) for n in range(first, min(first + 1_000, jobs))], 1)

    def captures(self, count: int) -> list[Transfer]:
        return [self._capture(number) for number in itertools.islice(self._number, count)]

    def batches(self, size: int, seconds: float) -> tuple[float, list[float]]:
        """Captures each second of posting, and how long each batch took."""
        spent: list[float] = []
        gc.collect()
        while sum(spent) < seconds:
            batch = self.captures(size)
            began = time.perf_counter()
            with self.engine.begin() as conn:
                outcomes = book.post(conn, batch, 1_000)
            spent.append(time.perf_counter() - began)
            assert all(outcome.ok for outcome in outcomes)
        return size * len(spent) / sum(spent), spent

    async def crowd(self, seconds: float) -> float:
        """Captures each second by callers who each wait for their own."""
        group = GroupCommit(self.engine, lambda: 1_000)
        stop = time.perf_counter() + seconds

        async def caller() -> int:
            count = 0
            while time.perf_counter() < stop:
                outcomes = await group.post(self.captures(1))
                assert outcomes[0].ok
                count += 1
            return count

        began = time.perf_counter()
        counts = await asyncio.gather(*(caller() for _ in range(CALLERS)))
        took = time.perf_counter() - began
        group.close()
        return sum(counts) / took

    def _id(self) -> uuid.UUID:
        return uuid.UUID(int=self._dice.getrandbits(128), version=4)

    def _capture_id(self, number: int, job: int) -> uuid.UUID:
        """Begins with a time, as the market's do: each job is charged once a minute, and has begun to run up
        to half a minute later than it was given away.
        """
        at_ms = 30_000 + number * 60_000 // self._jobs - job * 7_919 % 30_000
        return uuid.UUID(int=at_ms << 80 | self._dice.getrandbits(80))

    def _asset(self, number: int) -> str:
        return chart.ASSET if self._assets == 1 else f"a{number % self._assets}"

    def _code(self, kind: str, number: int) -> str:
        return kind if self._assets == 1 else f"{kind}@{self._asset(number)}"

    def _hold(self, number: int) -> Transfer:
        asset = self._asset(number)
        return Transfer(
            id=self._id(), kind=entries.TransferKind.HOLD, debit=chart.wallet("buyer", asset),
            credit=chart.hold(_job(number), asset), amount_micro=10**15 // self._jobs // 2, event_ms=1,
            ref=_job(number),
        )  # fmt: skip

    def _capture(self, number: int) -> Transfer:
        job, asset = number % self._jobs, self._asset(number % self._jobs)
        return Transfer(
            id=self._capture_id(number, job), kind=entries.TransferKind.CAPTURE,
            debit=chart.hold(_job(job), asset),
            credit=chart.earnings(f"seller{job % self._sellers}", asset), amount_micro=1_000, event_ms=number,
            fee_account=self._code("fee", job), fee_micro=25, ref=_job(job), window_no=number,
        )  # fmt: skip


def _job(number: int) -> str:
    return f"job_01k8w3zq6f8v6m6v3x{number:08d}"


class Server:
    """A PostgreSQL that writes to the disk, its pgbench, and what its processes have spent."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        self._pgbench = find_program("pgbench", how="apt-get install postgresql", folders=folders)
        self._admin = make_engine(server.url("postgres"))
        with self._admin.connect() as conn:
            backend = conn.scalar(text("SELECT pg_backend_pid()"))
        self._postmaster = psutil.Process(backend).parent()

    def cpu_seconds(self) -> float:
        assert self._postmaster is not None
        total = 0.0
        for process in (self._postmaster, *self._postmaster.children(recursive=True)):
            try:
                spent = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += spent.user + spent.system
            if process == self._postmaster:
                total += spent.children_user + spent.children_system
        return total

    def settle(self) -> None:
        """No measurement pays for the pages that the one before it dirtied."""
        with self._admin.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("CHECKPOINT"))

    def prepare_tpcb(self, database: str) -> None:
        self._run("-i", "-q", "-s", "10", database)

    def tpcb(self, database: str, clients: int, seconds: float) -> tuple[float, float]:
        """Transactions each second, and server CPU for one."""
        self.settle()
        before = self.cpu_seconds()
        out = self._run("-n", "-c", str(clients), "-j", "2", "-T", str(max(1, round(seconds))), database)
        spent = self.cpu_seconds() - before
        tps = re.search(r"tps = ([\d.]+)", out)
        count = re.search(r"actually processed: (\d+)", out)
        assert tps is not None
        assert count is not None
        return float(tps[1]), spent / int(count[1])

    def _run(self, *arguments: str) -> str:
        where = ["-h", str(self._server.socket_folder), "-U", "usance"]
        command = [str(self._pgbench), *where, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measure(*, quick: bool) -> list[Figure]:
    # As the coordinator runs: by Python's own measure a twelfth of the time goes into searching for cycles.
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, OLDER_AFTER, OLDEST_AFTER)
    size = QUICK if quick else FULL
    seen = Seen()
    with running_postgres(durable=True) as started, tempfile.TemporaryDirectory() as folder:
        server = Server(started)
        with started.database() as pgbench_url, started.database() as url, started.database() as cold_url:
            database = pgbench_url.partition("@/")[2].partition("?")[0]
            server.prepare_tpcb(database)
            market = Market(url)
            cold = Market(cold_url, jobs=ASSETS, sellers=ASSETS, assets=ASSETS)
            lite = Market(f"sqlite:///{folder}/ledger.db")
            resident = psutil.Process().memory_info().rss
            for _ in range(size.rounds):
                _round(seen, server, database, market, cold, lite, size.seconds)
            grown = (psutil.Process().memory_info().rss - resident) / 2**20
            per_capture = _bytes_per_capture(market.engine)
            cold.engine.dispose()
            lite.engine.dispose()
            pages, audits = _reading(started, market, size)
            market.engine.dispose()
    return _figures(seen, grown, per_capture, pages, audits, size)


def _round(
    seen: Seen, server: Server, database: str, market: Market, cold: Market, lite: Market, seconds: float
) -> None:
    """Each of ours between runs of pgbench: what disturbs the machine disturbs both."""
    tps: dict[int, float] = {}
    cpu: list[float] = []
    ours: dict[str, float] = {}
    steps: Iterator[tuple[int, Callable[[], None]]] = iter(())

    def thousand() -> None:
        before = server.cpu_seconds()
        rate, spent = market.batches(1_000, seconds)
        ours["1000"], ours["cpu"] = rate, (server.cpu_seconds() - before) / (1_000 * len(spent))

    def hundred() -> None:
        ours["100"] = market.batches(100, seconds)[0]

    def single() -> None:
        ours["p50"] = statistics.median(market.batches(1, seconds)[1])

    def crowd() -> None:
        ours["crowd"] = asyncio.run(market.crowd(seconds))

    def hot_and_cold() -> None:
        ours["cold"] = cold.batches(1_000, seconds)[0]
        server.settle()
        ours["hot"] = market.batches(1_000, seconds)[0]

    def file() -> None:
        ours["sqlite"] = lite.batches(1_000, seconds)[0]

    steps = zip(itertools.cycle(PGBENCH_CLIENTS), (thousand, hundred, single, crowd, hot_and_cold, file))
    for clients, step in steps:
        rate, spent = server.tpcb(database, clients, seconds)
        tps[clients] = max(tps.get(clients, 0), rate)
        cpu.append(spent)
        server.settle()
        step()
    best = max(tps.values())
    seen.note("captures/s, batches of 1000, × best pgbench", ours["1000"], best)
    seen.note("captures/s, batches of 100, × best pgbench", ours["100"], best)
    seen.note(
        "server CPU µs, TPC-B ÷ capture at 1000", ours["cpu"] * 1e6, min(cpu) * 1e6, min(cpu) / ours["cpu"]
    )
    seen.note(f"{CALLERS} callers through group commit, × best pgbench", ours["crowd"], best)
    seen.note("one capture ms, p50, ÷ pgbench c1 mean", ours["p50"] * 1e3, 1e3 / tps[1])
    seen.note("hot ÷ cold fee account, captures/s", ours["hot"], ours["cold"])
    seen.note("SQLite, full durability, 1000, × best pgbench", ours["sqlite"], best)


def _bytes_per_capture(engine: Engine) -> float:
    with engine.connect() as conn:
        size = conn.scalar(text("SELECT pg_total_relation_size('ledger_transfer')")) or 0
        return float(size) / book.transfer_count(conn)


def _reading(
    started: Postgres, market: Market, size: Size
) -> tuple[tuple[float, float], tuple[float, float]]:
    """A statement's page in a small and in a large ledger, in turns; then the large one is audited whole,
    between two spells of posting.
    """
    with started.database() as small_url:
        small = Market(small_url)
        for one, wanted in ((small, 10_000), (market, size.page_transfers)):
            with reading(one.engine) as conn:
                count = book.transfer_count(conn)
            while count < wanted + JOBS:
                with one.engine.begin() as conn:
                    count += len(book.post(conn, one.captures(2_000), 1_000))
            with one.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
                conn.execute(text("VACUUM ANALYZE"))
        dice = random.Random(2)
        spent: dict[str, list[float]] = {"small": [], "large": []}
        with reading(small.engine) as here, reading(market.engine) as there:
            tails = {name: book.transfer_count(conn) for name, conn in (("small", here), ("large", there))}
            for _ in range(400):
                for name, conn in (("small", here), ("large", there)):
                    after = dice.randrange(JOBS + 1, tails[name] - 100)
                    began = time.perf_counter()
                    found = book.statement(conn, chart.FEE, after_seq=after, limit=100)
                    spent[name].append(time.perf_counter() - began)
                    assert len(found.legs) == 100
        before = market.batches(1_000, size.seconds)[0]
        with market.engine.begin() as conn:
            while seal.seal(conn, 2_000, seals_max=1_000):
                pass
        with reading(market.engine) as conn:
            began = time.perf_counter()
            assert list(audit.audit(conn)) == []
            took = time.perf_counter() - began
            legs = conn.scalar(text("SELECT sum(seq) FROM ledger_account")) or 0
        after_all = market.batches(1_000, size.seconds)[0]
        small.engine.dispose()
    page = statistics.median(spent["large"]), statistics.median(spent["small"])
    return page, (float(legs) / took, 3 * max(before, after_all))


def _figures(
    seen: Seen,
    grown: float,
    per_capture: float,
    pages: tuple[float, float],
    audits: tuple[float, float],
    size: Size,
) -> list[Figure]:
    large = f"{size.page_transfers:,}"
    return [
        seen.figure("captures/s, batches of 1000, × best pgbench", 7, 12),
        seen.figure("captures/s, batches of 100, × best pgbench", 5, 8),
        seen.figure("server CPU µs, TPC-B ÷ capture at 1000", 10, 20),
        seen.figure(f"{CALLERS} callers through group commit, × best pgbench", 3, 6),
        seen.figure("one capture ms, p50, ÷ pgbench c1 mean", 2, 1, lower_is_better=True),
        seen.figure("hot ÷ cold fee account, captures/s", 0.95, 1),
        seen.figure("SQLite, full durability, 1000, × best pgbench", 10, 15),
        figure(
            "statement page ms, large ÷ small ledger", pages[0] * 1e3, pages[1] * 1e3, pages[0] / pages[1],
            1.5, 1.1,
            at_most=True, note=f"{large} transfers ÷ 10,000; the full run has 10,000,000",
        ),
        figure(
            "full audit legs/s ÷ posting legs/s", *audits, audits[0] / audits[1], 3, 10, at_most=False,
            note=f"a ledger of {large} transfers, all sealed, hashes recomputed",
        ),
        Figure(figure="bytes per capture on disk, indices included", ours=per_capture),
        Figure(figure="growth of our memory while posting, MiB", ours=grown),
    ]  # fmt: skip


if __name__ == "__main__":
    asked = report.arguments(__doc__).parse_args()
    report.show("ledger", measure(quick=asked.quick), as_json=asked.json)
