"""A market under churn for hours, and what grows in it; writes docs/soak.md and docs/soak.svg.

    python -m benchmarks.soak [--hours 2] [--at-once 6] [--into FOLDER]

A coordinator, two agents, and jobs that come and go without a pause. Memory, file descriptors, threads,
journals and the database are looked at again and again. What must stay flat is compared between the second
quarter of the time and the last one; the database may grow, by as much for each job at the end as before.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.plot import curves
from benchmarks.processes import rss_bytes
from cli.client.market import Market, open_market
from cli.connection import Connection
from cli.model import Isolation, JobSpec
from cli.wishes import GpuRequest
from runtime.ids import new_uuid
from tests.support.agent_terms import AgentTerms
from tests.support.market import WholeMarket

AGENTS = ("one", "two")
AT_ONCE = 6
LOOKS = 240
# What a caching allocator and the schedule of a test machine may add, of the middle of the second quarter.
FLAT = 1.15
MIB = 1 << 20

Line = list[tuple[float, float]]


@dataclass
class Curves:
    """By figure and program, over minutes."""

    of: dict[str, dict[str, Line]] = field(default_factory=dict)

    def add(self, figure: str, program: str, minute: float, value: float) -> None:
        self.of.setdefault(figure, {}).setdefault(program, []).append((minute, value))


async def _churn(connection: Connection, over: asyncio.Event, done: list[int]) -> None:
    """One buyer's window: a job, its end, the next."""
    async with open_market(connection) as market:
        while not over.is_set():
            job = await market.submit_job(_spec(), str(new_uuid()))
            await _until_ended(market, job.job_id)
            done[0] += 1


async def _until_ended(market: Market, job_id: str) -> None:
    async for _ in market.watch_job(job_id):
        pass


def _spec() -> JobSpec:
    return JobSpec(
        name="soak",
        image="",
        command=("sh", "-c", "head -c 20000 /dev/zero; sleep 1"),
        env=(),
        gpus=GpuRequest(),
        isolation_min=Isolation.PROCESS,
        gpu_hour_price_micro_max=0,
        budget_micro=1_000_000,
        run_ms_max=60_000,
        stop_grace_ms=500,
        retries_max=0,
    )


async def _soak(market: WholeMarket, length_s: float, at_once: int) -> tuple[Curves, int]:
    seen, over, done = Curves(), asyncio.Event(), [0]
    buyer = market.connection("buyer")
    windows = [asyncio.create_task(_churn(buyer, over, done)) for _ in range(at_once)]
    began = time.monotonic()
    while (passed_s := time.monotonic() - began) < length_s:
        _look(market, seen, passed_s / 60, done[0])
        await asyncio.wait(windows, timeout=max(0.5, length_s / LOOKS), return_when=asyncio.FIRST_EXCEPTION)
        for window in windows:
            if window.done():
                window.result()
    over.set()
    await asyncio.gather(*windows)
    return seen, done[0]


def _look(market: WholeMarket, seen: Curves, minute: float, jobs: int) -> None:
    pids = {"coordinator": market.coordinator.pid, **{name: market.agent(name).pid for name in AGENTS}}
    for program, pid in pids.items():
        seen.add("memory, MiB", program, minute, rss_bytes(pid) / MIB)
        seen.add("file descriptors", program, minute, len(list(Path(f"/proc/{pid}/fd").iterdir())))
        seen.add("threads", program, minute, len(list(Path(f"/proc/{pid}/task").iterdir())))
    for name in AGENTS:
        seen.add("agent's state, MiB", name, minute, _size(market.state_of(name)) / MIB)
    size = _size(market.data)
    seen.add("database, MiB", "coordinator", minute, size / MIB)
    if jobs:
        seen.add("database, KiB a job", "coordinator", minute, size / 1_024 / jobs)
    seen.add("jobs", "ended", minute, jobs)


def _size(folder: Path) -> int:
    total = 0
    # What is being removed meanwhile is passed over, folders too: rglob would stumble over them.
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(f"{parent}/{name}").st_size
    return total


FLAT_FIGURES = ("memory, MiB", "file descriptors", "threads", "agent's state, MiB", "database, KiB a job")


def judged(seen: Curves) -> list[tuple[str, float, float, bool]]:
    """Of what must stay flat: the middle of the second quarter, that of the last, and if that will do."""
    found = []
    for figure in FLAT_FIGURES:
        for program, line in seen.of.get(figure, {}).items():
            quarter = len(line) // 4
            if quarter:
                early, late = (_middle(part) for part in (line[quarter : 2 * quarter], line[-quarter:]))
                # A few more of what is counted in units are the moment's.
                found.append((f"{figure}, {program}", early, late, late <= early * FLAT + 2))
    return found


def _middle(line: Sequence[tuple[float, float]]) -> float:
    return statistics.median(value for _, value in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2)
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="jobs, so many")
    parser.add_argument("--into", type=Path, default=Path(__file__).parents[1] / "docs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="usance-bench-") as name:
        market = WholeMarket(Path(name) / "m")
        try:
            market.start()
            market.open_account("buyer", "buyer", deposit="100000")
            market.open_account("seller", "seller")
            for agent in AGENTS:
                terms = AgentTerms(price="1", simulated_gpus=4, trusted_accounts=("buyer",))
                market.add_agent(agent, "seller", terms)
            seen, jobs = asyncio.run(_soak(market, given.hours * 3600, given.at_once))
        finally:
            market.stop()
    found = judged(seen)
    title = f"{given.hours:g} hours, {jobs:,} jobs"
    (given.into / "soak.svg").write_text(curves(title, seen.of))
    rows = [
        f"| {what} | {early:.4g} | {late:.4g} | {'ok' if ok else '**grows**'} |"
        for what, early, late, ok in found
    ]
    head = [
        "# Soak",
        "",
        f"Made by `make soak`: {title}.",
        "",
        "![What grows, and what does not](soak.svg)",
        "",
    ]
    table = ["| what | second quarter | last quarter | |", "| --- | --: | --: | --- |", *rows]
    (given.into / "soak.md").write_text("\n".join([*head, *table]) + "\n")
    print("\n".join(table))
    sys.exit(0 if all(ok for *_, ok in found) else 1)


if __name__ == "__main__":
    main()
