"""Supervisors that come late, or tell late, as on a machine that has too much to do."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from agent.domain.attempt import AttemptKey, Isolation, JobOrder
from agent.executor.devices import is_alive
from agent.executor.launcher import News
from agent.executor.process import ProcessExecutor
from agent.executor.runs import SupervisedRuns
from runtime.clock import SystemClock
from tests.rig.parts import wait_until

CLOCK = SystemClock()
KEY = AttemptKey(attempt_id="late", epoch=1)
ORDER = JobOrder(
    key=KEY,
    image="",
    command=("sleep", "600"),
    env={},
    gpu_uuids=(),
    isolation_min=Isolation.PROCESS,
    stop_grace_ms=1_000,
    run_ms_max=86_400_000,
    memory_bytes=0,
    cpu_milli=0,
)
# Takes the run's lock, and when it is told to says that it has started it.
_LATE_S = 0.2
_OTHER = """
import fcntl, json, os, sys
folder = sys.argv[1]
lock = os.open(folder + "/lock", os.O_RDWR | os.O_CREAT)
fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
with open(folder + "/started.json.new", "w") as file:
    json.dump({"run_id": "process-1-1", "start_boot_ms": 1, "boot_id": "b"}, file)
os.rename(folder + "/started.json.new", folder + "/started.json")
sys.stdin.read()
"""


def test_what_has_ended_is_not_metered_on_though_nobody_tells_of_its_end(tmp_path):
    """A record is cut up to where a run was seen alive. A supervisor that is starved sees nothing."""

    async def story() -> None:
        executor = ProcessExecutor(tmp_path, CLOCK)
        runs = SupervisedRuns(tmp_path, CLOCK)
        await executor.prepare(ORDER, lambda _: None)
        run = await executor.start(ORDER, 600_000)
        command, supervisor = int(run.run_id.split("-")[1]), runs.supervisor_pid(KEY)
        assert supervisor is not None
        try:
            assert await executor.is_running(ORDER)
            os.kill(supervisor, signal.SIGSTOP)
            os.kill(command, signal.SIGKILL)
            await asyncio.to_thread(wait_until, lambda: not is_alive(command), "the command has ended")
            assert runs.is_supervised(KEY)
            assert not runs.has_ended(KEY)
            assert not await executor.is_running(ORDER)
        finally:
            os.kill(supervisor, signal.SIGCONT)
            await executor.destroy(KEY)
            await executor.close()

    asyncio.run(story())


class OvertakenLauncher:
    """Starts nothing: whenever it is asked, somebody else's supervisor was faster, and ours goes at once."""

    def __init__(self) -> None:
        self.other: subprocess.Popen[str] | None = None

    def launch(self, folder: Path, *, cold: bool = False) -> News:
        if self.other is None:
            self.other = subprocess.Popen(
                [sys.executable, "-c", _OTHER, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert self.other.stdout is not None
            self.other.stdout.readline()
            asyncio.get_running_loop().call_later(_LATE_S, self._go_on)
        ours, its = os.pipe2(os.O_NONBLOCK)
        os.close(its)
        return News(ours)

    def _go_on(self) -> None:
        assert self.other is not None
        assert self.other.stdin is not None
        self.other.stdin.write("\n")
        self.other.stdin.flush()

    def warm_up(self) -> None: ...

    def drop_spawner(self) -> None: ...

    def close(self) -> None: ...


def test_a_supervisor_that_another_has_overtaken_is_no_failed_start(tmp_path):
    """An agent was killed right after it had asked for a start, and the next one asks for it again."""

    async def story() -> None:
        runs, launcher = SupervisedRuns(tmp_path, CLOCK), OvertakenLauncher()
        runs._launcher = launcher  # type: ignore[assignment]
        runs.make_folder(KEY)
        try:
            run = await runs.start(ORDER, {}, 600_000)
            assert run.run_id == "process-1-1"
        finally:
            runs.let_go()
            assert launcher.other is not None
            launcher.other.communicate("")

    asyncio.run(story())
