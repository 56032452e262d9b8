"""A job that writes without end, as its coordinator takes it in: bytes a second, and how long beats wait.

    python -m benchmarks.firehose [--quick] [--json]

One simulated agent sends output in reports of 256 KiB, some of them on their way at a time, until all is
acknowledged, which is when it is on the disk. Others beat. The floor is the database alone: the same bytes,
in as many rows and transactions, written by one client that waits for nothing else.
"""

import asyncio
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks import report
from benchmarks.ground import Ground
from benchmarks.report import Figure
from benchmarks.simulated import GrpcAgent
from tests.rig.postgres import Postgres, running_postgres
from usance.v1 import host_pb2 as h
from usance.v1 import types_pb2 as t

REPORT_CHUNKS, CHUNK_BYTES = 4, 65_536
REPORTS_AHEAD = 4
BAR, AIM = 0.25, 0.5
BEATS_BAR_MS, BEATS_AIM_MS = 250.0, 100.0
BEAT_EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Sizes:
    mib: int
    beating: int


FULL, QUICK = Sizes(mib=256, beating=20), Sizes(mib=8, beating=4)


def measure(sizes: Sizes) -> Iterator[Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="usance-bench-") as name,
        running_postgres(durable=True) as server,
    ):
        folder = Path(name)
        folder.chmod(0o755)
        for what, of in (("SQLite", None), ("PostgreSQL", server)):
            yield from _one(folder / what, what, sizes, of)


def _one(folder: Path, what: str, sizes: Sizes, server: Postgres | None) -> Iterator[Figure]:
    folder.mkdir()
    with ExitStack() as stack:
        database = "" if server is None else stack.enter_context(server.database())
        ground = Ground(folder=folder, database=database)
        ground.prepare(sizes.beating + 1, 1)
        ground.start()
        stack.callback(ground.stop)
        calm_ms, flood_ms, mib_s = asyncio.run(_flood(ground, sizes))
    floor = _sqlite(folder, sizes) if server is None else _postgres(server, sizes)
    note = f"{sizes.mib} MiB in reports of {REPORT_CHUNKS * CHUNK_BYTES >> 10} KiB; floor: the database alone"
    yield report.at_least(f"output taken in, MiB/s, {what}", mib_s, floor, BAR, AIM, note)
    yield Figure(
        figure=f"a beat beside it, ms, p99, {what}",
        ours=_p99(flood_ms),
        floor=_p99(calm_ms),
        ratio=_p99(flood_ms) / _p99(calm_ms),
        bar=f"<= {BEATS_BAR_MS:g} ms",
        aim=f"<= {BEATS_AIM_MS:g} ms",
        ok=_p99(flood_ms) <= BEATS_BAR_MS,
        note="floor: the same agents' beats before it",
    )


def _p99(times_ms: list[float]) -> float:
    return statistics.quantiles(times_ms, n=100)[98]


async def _flood(ground: Ground, sizes: Sizes) -> tuple[list[float], list[float], float]:
    fleet = json.loads((ground.folder / "fleet.json").read_text())
    agents = [
        GrpcAgent(
            ground.hosts, fleet["authority_pem"], fleet["key_pem"], each["certificate_pem"], each["attempts"]
        )
        for each in fleet["agents"]
    ]
    for agent in agents:
        await agent.open()
    writer, *others = agents
    await writer.beat()
    over = asyncio.Event()
    flooding = asyncio.create_task(_beats(others, over))
    await asyncio.sleep(2)
    over.set()
    calm_ms = await flooding
    over.clear()
    beating = asyncio.create_task(_beats(others, over))
    began = time.monotonic()
    await _write(writer, fleet["agents"][0]["attempts"][0], sizes.mib << 20)
    seconds = time.monotonic() - began
    over.set()
    flood_ms = await beating
    for agent in agents:
        await agent.close()
    return calm_ms, flood_ms, sizes.mib / seconds


async def _beats(agents: list[GrpcAgent], over: asyncio.Event) -> list[float]:
    """Each beats at its own pace until it is over; how long each answer took."""
    times_ms: list[float] = []

    async def one(agent: GrpcAgent) -> None:
        while not over.is_set():
            began = time.perf_counter()
            await agent.beat()
            times_ms.append(1_000 * (time.perf_counter() - began))
            await asyncio.sleep(BEAT_EVERY_S)

    await asyncio.gather(*map(one, agents))
    return times_ms


async def _write(agent: GrpcAgent, attempt_id: str, size: int) -> None:
    data = os.urandom(CHUNK_BYTES)
    sent = known = 0
    while known < size:
        while sent < size and sent - known < REPORTS_AHEAD * REPORT_CHUNKS * CHUNK_BYTES:
            chunks = [
                t.LogChunk(offset=sent + n * CHUNK_BYTES, stream=t.LOG_STREAM_STDOUT, data=data)
                for n in range(REPORT_CHUNKS)
            ]
            sent += REPORT_CHUNKS * CHUNK_BYTES
            await agent.say(h.LogReport(attempt_id=attempt_id, epoch=1, chunks=chunks))
        known = max(known, await agent.log_offset())


def _sqlite(folder: Path, sizes: Sizes) -> float:
    with closing(sqlite3.connect(folder / "floor.db", isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "CREATE TABLE chunk (offset_bytes INTEGER PRIMARY KEY, data BLOB NOT NULL)"
        )

        def put(rows: list[tuple[int, bytes]]) -> None:
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO chunk VALUES (?, ?)", rows)
            connection.execute("COMMIT")

        return _pace(put, sizes)


def _postgres(server: Postgres, sizes: Sizes) -> float:
    with server.database() as url, psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE chunk (offset_bytes bigint PRIMARY KEY, data bytea NOT NULL)")
        connection.commit()

        def put(rows: list[tuple[int, bytes]]) -> None:
            with connection.cursor() as cursor:
                cursor.executemany("INSERT INTO chunk VALUES (%s, %s)", rows)
            connection.commit()

        return _pace(put, sizes)


def _pace(put: Callable[[list[tuple[int, bytes]]], None], sizes: Sizes) -> float:
    data, size = os.urandom(CHUNK_BYTES), sizes.mib << 20
    began = time.monotonic()
    for start in range(0, size, REPORT_CHUNKS * CHUNK_BYTES):
        put([(start + n * CHUNK_BYTES, data) for n in range(REPORT_CHUNKS)])
    return sizes.mib / (time.monotonic() - began)


def main() -> None:
    given = report.arguments(__doc__).parse_args()
    report.show("firehose", list(measure(QUICK if given.quick else FULL)), as_json=given.json)


if __name__ == "__main__":
    main()
