"""A child process with limits, and all that it leaves behind."""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from agent.executor.supervisor.clock import boot_ms
from agent.executor.supervisor.files import READ_BYTES, STREAM_STDERR, STREAM_STDOUT
from agent.executor.supervisor.target import Ended, NeverStartedError, Started

_CLEAR_UP_MS = 10_000
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class ProcessTarget:
    """A Target that is our child, in a session of its own."""

    def __init__(self, spec: dict[str, Any], folder: Path) -> None:
        self._spec = spec
        self._folder = folder
        self._pipes: dict[int, int] = {}
        self._child = 0
        self._start_ms = 0
        self._end: Ended | None = None

    def start(self) -> Started:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        # What the command leaves behind becomes our child instead of init's, so we can find and end it.
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            process = subprocess.Popen(
                self._spec["command"],
                env=self._spec["env"],
                cwd=self._folder / "work",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=self._limits(prctl),  # noqa: PLW1509  we have no threads
            )
        except OSError as error:
            detail = f"{self._spec['command'][0]}: {error.strerror}"
            raise NeverStartedError(detail, unstartable=True) from error
        except subprocess.SubprocessError as error:
            raise NeverStartedError(f"the limits can't be set: {error}", unstartable=False) from error
        # After it runs, not before: the difference is not to be paid.
        self._start_ms = boot_ms()
        self._child = process.pid
        process.returncode = 0  # we reap it ourselves
        assert process.stdout is not None
        assert process.stderr is not None
        self._files = (process.stdout, process.stderr)
        self._pipes = {process.stdout.fileno(): STREAM_STDOUT, process.stderr.fileno(): STREAM_STDERR}
        for pipe in self._pipes:
            os.set_blocking(pipe, False)
        return Started(run_id=f"process-{self._child}-{self._start_ms}", start_boot_ms=self._start_ms)

    def resume(self, started: Started) -> None:
        """The command died with the supervisor that was its parent."""
        self._end = Ended(exit_code=None, run_ms=0, lost=f"the supervisor of {started.run_id} was killed")

    def descriptors(self, *, with_output: bool) -> list[int]:
        return list(self._pipes) if with_output else []

    def read(self, ready: Iterable[int]) -> list[tuple[int, bytes]]:
        pieces: list[tuple[int, bytes]] = []
        for pipe in ready:
            with contextlib.suppress(BlockingIOError):
                data = os.read(pipe, READ_BYTES)
                if data:
                    pieces.append((self._pipes[pipe], data))
                else:
                    del self._pipes[pipe]
        return pieces

    def ended(self) -> Ended | None:
        self._reap()
        return self._end

    def is_drained(self) -> bool:
        return not self._pipes

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child, signal.SIGTERM)

    def kill(self) -> None:
        for pid in _descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def clear_up(self) -> None:
        until_ms = boot_ms() + _CLEAR_UP_MS
        while boot_ms() < until_ms:
            self._reap()
            if not _descendants():
                return
            self.kill()
            time.sleep(0.005)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child:
                code = os.waitstatus_to_exitcode(status)
                # As a shell says it: 128 and the signal's number.
                self._end = Ended(
                    exit_code=code if code >= 0 else 128 - code, run_ms=boot_ms() - self._start_ms
                )

    def _limits(self, prctl: Callable[..., int]) -> Callable[[], None]:
        spec = self._spec

        def apply() -> None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            nofile = min(spec["nofile"], resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
            if spec["memory_bytes"]:
                # Of its own writable memory; a limit of the address space would stop CUDA, which reserves
                # far more than it uses.
                resource.setrlimit(resource.RLIMIT_DATA, (spec["memory_bytes"],) * 2)
            if spec["cpu_count"]:
                usable = sorted(os.sched_getaffinity(0))
                os.sched_setaffinity(0, usable[: spec["cpu_count"]])
            os.nice(spec["nice"])
            Path("/proc/self/oom_score_adj").write_text(str(spec["oom_score_adj"]), encoding="ascii")
            os.umask(0o077)
            signal.set_wakeup_fd(-1)

        return apply


def _descendants() -> list[int]:
    """All processes below us. None hides: orphans among them become our own children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has just ended
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
