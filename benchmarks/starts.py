"""How soon a command runs after it was asked for: by us, and by Slurm on the same machine at the same time.

Both stand ready all the while and take turns, start by start and burst by burst: whatever else the machine
does meets both alike. The command itself writes the time.
"""

import asyncio
import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.processes import children, family_cpu_s
from benchmarks.slurm import CPUS, Slurm, running_slurm
from cli.client.market import Market, open_market
from cli.connection import Connection
from cli.model import Isolation, JobSpec
from cli.wishes import GpuRequest
from runtime.ids import new_uuid
from tests.rig.parts import MissingError, wait_until
from tests.support.agent_terms import AgentTerms
from tests.support.market import WholeMarket

SUBMITTERS = 8
BUDGET_MICRO = 1_000_000
DONE_S = 120.0
NS_PER_MS = 1_000_000
# Slurm looks at its queue once a second: without a random phase every submit would meet the same moment.
PHASE_S = 0.2


@dataclass(kw_only=True)
class Pace:
    """What a system that starts a process per job did."""

    waits_ms: list[float] = field(default_factory=list)
    jobs_s: list[float] = field(default_factory=list)
    # Processor time of its own programs for each start that stood alone.
    cpu_ms: list[float] = field(default_factory=list)

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.waits_ms)

    @property
    def p99_ms(self) -> float:
        return sorted(self.waits_ms)[min(len(self.waits_ms) - 1, len(self.waits_ms) * 99 // 100)]


class Starter(Protocol):
    async def start(self, command: list[str]) -> None:
        """Ask for it to be run."""
        ...

    async def burst(self, folder: Path, count: int) -> None:
        """Ask for so many that write their times into the folder, as fast as it can."""
        ...

    def cpu_s(self) -> float: ...


def note_time(folder: Path, name: str) -> list[str]:
    """A command that writes when it runs."""
    return ["/bin/sh", "-c", f"date +%s%N > {folder}/{name}.part && mv {folder}/{name}.part {folder}/{name}"]


def paces(folder: Path, singles: int, burst: int, bursts: int) -> tuple[Pace, Pace | None, str]:
    """Ours, Slurm's or None, and why there is none."""
    with ExitStack() as stack:
        slurm, why = None, ""
        try:
            (folder / "peer").mkdir()
            slurm = SlurmStarter(stack.enter_context(running_slurm(folder / "peer" / "slurm")), folder)
        except MissingError as missing:
            why = str(missing)
        connection, cpu_s = stack.enter_context(_running_usance(folder / "market"))
        found = asyncio.run(_take_turns(connection, cpu_s, slurm, folder, singles, burst, bursts))
        return *found, why


async def _take_turns(
    connection: Connection,
    cpu_s: Callable[[], float],
    slurm: Starter | None,
    folder: Path,
    singles: int,
    burst: int,
    bursts: int,
) -> tuple[Pace, Pace | None]:
    def made(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    phase, numbers = random.Random(1), itertools.count()
    ours, theirs = Pace(), Pace()
    async with open_market(connection) as market:
        turns: list[tuple[Pace, Starter]] = [(ours, UsanceStarter(market, cpu_s))]
        turns += [(theirs, slurm)] if slurm else []
        for number in range(singles):
            # Neither always comes after the other.
            for pace, starter in turns[:: 1 if number % 2 else -1]:
                await asyncio.sleep(phase.uniform(0, PHASE_S))
                await _single(pace, starter, made(f"single-{next(numbers)}"))
        for _ in range(bursts):
            for pace, starter in turns:
                await _burst(pace, starter, made(f"burst-{next(numbers)}"), burst)
    return ours, theirs if slurm else None


async def _single(pace: Pace, starter: Starter, folder: Path) -> None:
    before_s, asked_ns = starter.cpu_s(), time.time_ns()
    await starter.start(note_time(folder, "0"))
    await asyncio.to_thread(_await_all, folder, 1)
    pace.waits_ms.append((_times_ns(folder)[0] - asked_ns) / NS_PER_MS)
    pace.cpu_ms.append((starter.cpu_s() - before_s) * 1e3)


async def _burst(pace: Pace, starter: Starter, folder: Path, count: int) -> None:
    asked_ns = time.time_ns()
    await starter.burst(folder, count)
    await asyncio.to_thread(_await_all, folder, count)
    pace.jobs_s.append(count / ((_times_ns(folder)[-1] - asked_ns) / 1e9))


def _await_all(folder: Path, count: int) -> None:
    wait_until(lambda: len(list(folder.glob("*[0-9]"))) >= count, f"{count} commands ran", deadline_s=DONE_S)


def _times_ns(folder: Path) -> list[int]:
    return sorted(int(path.read_text()) for path in folder.glob("*[0-9]"))


@contextmanager
def _running_usance(folder: Path) -> Iterator[tuple[Connection, Callable[[], float]]]:
    market, others = WholeMarket(folder=folder), set(children(os.getpid()))
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
        pids = set(children(os.getpid())) - others
        yield connection, lambda: sum(map(family_cpu_s, pids))
    finally:
        market.stop()


class UsanceStarter:
    """The real coordinator, and the real agent with its process executor."""

    def __init__(self, market: Market, cpu_s: Callable[[], float]) -> None:
        self._market = market
        self.cpu_s = cpu_s

    async def start(self, command: list[str]) -> None:
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
        await self._market.submit_job(spec, str(new_uuid()))

    async def burst(self, folder: Path, count: int) -> None:
        async def submitter(first: int) -> None:
            for number in range(first, count, SUBMITTERS):
                await self.start(note_time(folder, str(number)))

        await asyncio.gather(*(submitter(first) for first in range(SUBMITTERS)))


class SlurmStarter:
    """srun for one, an array of jobs for many: each is Slurm's best."""

    def __init__(self, slurm: Slurm, folder: Path) -> None:
        self._slurm = slurm
        self._folder = folder

    def cpu_s(self) -> float:
        times = os.times()
        return sum(map(family_cpu_s, self._slurm.pids)) + times.children_user + times.children_system

    async def start(self, command: list[str]) -> None:
        await asyncio.to_thread(self._slurm.run, "srun", "--cpus-per-task=1", *command)

    async def burst(self, folder: Path, count: int) -> None:
        script = folder / "job.sh"
        script.write_text(f"#!/bin/sh\n{note_time(folder, '$SLURM_ARRAY_TASK_ID')[2]}\n")
        argv = ["sbatch", f"--array=0-{count - 1}", "--cpus-per-task=1", "--output=/dev/null", str(script)]
        await asyncio.to_thread(self._slurm.run, *argv)
