"""A real agent as a process of its own, and what it leaves running."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agent.executor.runs import SupervisedRuns
from runtime.clock import SystemClock

REPOSITORY = Path(__file__).parents[2]
PROCESS_FLAGS = (
    *("--executor", "process", "--allow-process-executor"),
    *("--price", "0.50", "--simulated-gpus", "2"),
)


class AgentProcess:
    """`usance-agent` with one state folder; it can be killed and started again."""

    def __init__(
        self, state_dir: Path, flags: Sequence[str] = PROCESS_FLAGS, env: Mapping[str, str] | None = None
    ) -> None:
        self.state_dir = state_dir
        self._flags = flags
        self._env = dict(env or os.environ)
        self._process: asyncio.subprocess.Process | None = None
        self.log = state_dir.with_suffix(".log")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def command(self, *arguments: str, flags: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run another of its commands to its end."""
        argv = [sys.executable, "-m", "agent", *arguments, "--state-dir", str(self.state_dir), *flags]
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, cwd=REPOSITORY, env=self._env, timeout=60
        )

    async def enroll(self, token: str) -> None:
        done = await asyncio.to_thread(self.command, "enroll", token)
        assert done.returncode == 0, done.stderr

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agent", "run", "--state-dir", str(self.state_dir), *self._flags),
                cwd=REPOSITORY,
                env=self._env,
                stderr=log,
            )

    async def kill(self) -> None:
        """As a crash would."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> int:
        return await self._end(signal.SIGTERM)

    async def ended(self) -> int:
        """Its exit code, when somebody else has ended it."""
        return await self._end(None)

    async def _end(self, number: signal.Signals | None) -> int:
        assert self._process is not None
        if number is not None and self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(20):
            code = await self._process.wait()
        self._process = None
        return code

    async def clear_up(self) -> None:
        """Stop the agent and kill what it has left running."""
        if self._process is not None:
            await self._end(signal.SIGKILL)
        for pid in [*supervisors(self.state_dir), *job_processes(self.state_dir)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def log_text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


def supervisors(state_dir: Path) -> list[int]:
    """Processes that hold the lock of one of its runs."""
    runs = SupervisedRuns(state_dir / "runs", SystemClock())
    found = (runs.supervisor_pid(key) for key in runs.held())
    return [pid for pid in found if pid is not None]


def descendants(root: int) -> list[int]:
    """A process and all below it that live."""
    stats = _stats()
    found = [root]
    for pid in found:
        found += [child for child, (_, state, parent) in stats.items() if parent == pid and state != "Z"]
    return found


def spawner(agent_pid: int) -> int | None:
    """The agent's living child that forks supervisors for it."""
    for pid, (name, state, parent) in _stats().items():
        if name == "usance-spawner" and parent == agent_pid and state != "Z":
            return pid
    return None


def _stats() -> dict[int, tuple[str, str, int]]:
    """Name, state and parent of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            name, _, rest = (entry / "stat").read_text().partition(" (")[2].rpartition(") ")
        except OSError:  # no process, or it has just ended
            continue
        if entry.name.isdigit():
            state, parent, *_ = rest.split()
            found[int(entry.name)] = (name, state, int(parent))
    return found


def job_processes(state_dir: Path, attempt: str = "") -> list[int]:
    """Processes of the agent's jobs, or of this one, that run without a container."""
    return _processes("environ", f"USANCE_RUN={state_dir}/runs/{attempt}")


def _processes(file: str, text: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            raw = (entry / file).read_bytes()
        except OSError:  # it has just ended
            continue
        if text.encode() in raw:
            found.append(int(entry.name))
    return found
