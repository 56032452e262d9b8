"""Supervisors stay when what had started them is killed, and come when it is not there."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.domain.attempt import EndReason, JobOrder, OutputStream
from agent.executor.process import ProcessExecutor
from runtime.clock import SystemClock
from tests.contract.test_executor import collect, end_of
from tests.rig.parts import wait_until
from tests.support.agent_process import spawner
from tests.support.orders import order

CLOCK = SystemClock()
PAID_MS = 600_000
LINES = b"".join(b"line %d\n" % number for number in range(1, 41))
Story = Callable[[ProcessExecutor], Coroutine[None, None, None]]


@pytest.fixture
def tell(tmp_path: Path):
    """Runs a story with an executor, and clears away what it left."""

    def run(story: Story) -> None:
        async def whole() -> None:
            async with executor_of(tmp_path) as executor:
                await story(executor)
                for key in await executor.held():
                    await executor.destroy(key)

        asyncio.run(whole())

    return run


@asynccontextmanager
async def executor_of(folder: Path) -> AsyncIterator[ProcessExecutor]:
    executor = ProcessExecutor(folder / "runs", CLOCK)
    try:
        yield executor
    finally:
        await executor.close()


def counting(marks: Path, attempt: str) -> JobOrder:
    """Each start of the command leaves a mark; it writes lines for a while, and ends with 6."""
    lines = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.02; done"
    return command(attempt, f"echo x >> {marks}/{attempt}; {lines}; exit 6")


def command(attempt: str, script: str) -> JobOrder:
    return order(attempt, command=("sh", "-c", script), isolation_min=ProcessExecutor.isolation)


async def begin(executor: ProcessExecutor, job: JobOrder) -> None:
    await executor.prepare(job, lambda _: None)
    await executor.start(job, PAID_MS)


async def check_whole(executor: ProcessExecutor, job: JobOrder, marks: Path) -> None:
    """It ran once and to its end, and all of its output is there."""
    end = await end_of(executor, job)
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 6)
    assert (await collect(executor, job))[OutputStream.STDOUT] == LINES
    assert (marks / job.key.attempt_id).read_text() == "x\n"


def own_environment(pid: int) -> list[bytes]:
    return [entry for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if entry]


def the_spawner() -> int:
    found = spawner(os.getpid())
    assert found is not None
    return found


def test_runs_outlive_the_spawner_and_the_next_one_is_started(tell, tmp_path):
    async def story(executor: ProcessExecutor) -> None:
        jobs = [counting(tmp_path, f"job_{number}") for number in range(6)]
        killed = set()
        for job in jobs:
            await begin(executor, job)
            killed.add(the_spawner())
            os.kill(the_spawner(), signal.SIGKILL)
            await asyncio.to_thread(wait_until, lambda: spawner(os.getpid()) is None, "it is dead")
        for job in jobs:
            await check_whole(executor, job, tmp_path)
        assert len(killed) == len(jobs)

    tell(story)


def test_a_spawner_that_dies_before_it_forks_costs_nobody_a_run(tell, tmp_path):
    """What was asked of it is lost, and started without it."""

    async def story(executor: ProcessExecutor) -> None:
        await begin(executor, counting(tmp_path, "first"))
        os.kill(the_spawner(), signal.SIGSTOP)
        jobs = [counting(tmp_path, f"job_{number}") for number in range(3)]
        starting = [asyncio.ensure_future(begin(executor, job)) for job in jobs]
        asked = executor._runs._news
        await asyncio.to_thread(wait_until, lambda: len(asked) > len(jobs), "all are asked for")
        os.kill(the_spawner(), signal.SIGKILL)
        await asyncio.gather(*starting)
        for job in jobs:
            await check_whole(executor, job, tmp_path)

    tell(story)


def test_a_stuck_spawner_is_left(tell, tmp_path):
    async def story(executor: ProcessExecutor) -> None:
        await begin(executor, counting(tmp_path, "first"))
        stuck = the_spawner()
        os.kill(stuck, signal.SIGSTOP)
        # The spare that waits already takes one.
        others = [counting(tmp_path, name) for name in ("second", "third")]
        for job in others:
            await begin(executor, job)
        for job in others:
            await check_whole(executor, job, tmp_path)
        await begin(executor, counting(tmp_path, "fourth"))
        assert the_spawner() != stuck

    tell(story)


def test_a_closed_agent_takes_its_spawner_along_and_no_run(tell, tmp_path):
    async def story(executor: ProcessExecutor) -> None:
        job = counting(tmp_path, "job")
        async with executor_of(tmp_path) as before:
            await begin(before, job)
            gone = the_spawner()
        with pytest.raises(ProcessLookupError):
            os.kill(gone, 0)
        await check_whole(executor, job, tmp_path)

    tell(story)


def test_a_run_has_nothing_of_the_spawner(tell, tmp_path):
    """Neither its descriptors nor its environment, its session or its group; and a supervisor has none of the
    agent's secrets."""

    async def story(executor: ProcessExecutor) -> None:
        job = command("job", f"ls /proc/self/fd; touch {tmp_path}/shown; sleep 60")
        await begin(executor, job)
        supervisor = executor._runs.supervisor_pid(job.key)
        assert supervisor is not None
        assert os.getsid(supervisor) == supervisor
        assert own_environment(supervisor) == [b"LD_BIND_NOW=1"]
        links = [
            os.readlink(f"/proc/{supervisor}/fd/{name}") for name in os.listdir(f"/proc/{supervisor}/fd")
        ]
        assert not [link for link in links if link.startswith("socket:")]
        await asyncio.to_thread(wait_until, (tmp_path / "shown").exists, "it has shown them")
        os.kill(supervisor, signal.SIGTERM)
        shown = (await collect(executor, job))[OutputStream.STDOUT]
        # The fourth is the folder that `ls` reads.
        assert shown == b"0\n1\n2\n3\n"

    tell(story)


def test_a_spawner_leaves_no_zombies(tell, tmp_path):
    async def story(executor: ProcessExecutor) -> None:
        for number in range(3):
            job = command(f"job_{number}", "exit 0")
            await begin(executor, job)
            await end_of(executor, job)
        children = Path(f"/proc/{the_spawner()}/task/{the_spawner()}/children")
        only_the_spare = lambda: len(children.read_text().split()) == 1  # noqa: E731
        await asyncio.to_thread(wait_until, only_the_spare, "they are gone")

    tell(story)
