"""A child process with limits, and all that it leaves behind."""

import contextlib
import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from agent.executor.supervisor.clock import boot_ms
from agent.executor.supervisor.files import READ_BYTES, STREAM_STDERR, STREAM_STDOUT
from agent.executor.supervisor.target import Ended, NeverStartedError, Started

_CLEAR_UP_MS = 10_000
# How a complaint about a start begins: is the command at fault?
_UNSTARTABLE, _NOT_UNSTARTABLE = b"!", b"?"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@cache
def prepare() -> Callable[..., int]:
    """Load what a start needs; before a fork this need not be done again after it."""
    prctl: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    return prctl


class ProcessTarget:
    """A Target that is our child, in a session of its own."""

    def __init__(self, spec: dict[str, Any], folder: str) -> None:
        self._spec = spec
        self._folder = folder
        self._pipes: dict[int, int] = {}
        self._child = 0
        self._start_ms = 0
        self._end: Ended | None = None

    def start(self) -> Started:
        prctl = prepare()
        # What the command leaves behind becomes our child instead of init's, so we can find and end it.
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        output, errors, complaint = (os.pipe2(os.O_CLOEXEC) for _ in range(3))
        self._child = os.fork()
        if self._child == 0:
            self._become_command(prctl, output[1], errors[1], complaint[1])
        for _, its in (output, errors, complaint):
            os.close(its)
        self._pipes = {output[0]: STREAM_STDOUT, errors[0]: STREAM_STDERR}
        for pipe in self._pipes:
            os.set_blocking(pipe, False)
        said = os.read(complaint[0], READ_BYTES)  # nothing, as soon as the command runs
        os.close(complaint[0])
        if said:
            os.waitpid(self._child, 0)
            raise NeverStartedError(said[1:].decode(errors="replace"), unstartable=said[:1] == _UNSTARTABLE)
        # After it runs, not before: the difference is not to be paid.
        self._start_ms = boot_ms()
        return Started(run_id=f"process-{self._child}-{self._start_ms}", start_boot_ms=self._start_ms)

    def resume(self, started: Started) -> None:
        """The command died with the supervisor that was its parent."""
        self._end = Ended(exit_code=None, run_ms=0, lost=f"the supervisor of {started.run_id} was killed")

    def descriptors(self, *, with_output: bool) -> list[int]:
        return list(self._pipes) if with_output else []

    def alarms(self) -> list[int]:
        return []

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

    def clear_up(self) -> bool:
        until_ms = boot_ms() + _CLEAR_UP_MS
        while self._reap():
            if boot_ms() >= until_ms:
                return False
            self.kill()
            time.sleep(0.005)
        return True

    def _reap(self) -> bool:
        """Whether there are children yet: without any, nothing is left of the command, orphans included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._child:
                code = os.waitstatus_to_exitcode(status)
                # As a shell says it: 128 and the signal's number.
                self._end = Ended(
                    exit_code=code if code >= 0 else 128 - code, run_ms=boot_ms() - self._start_ms
                )

    def _become_command(self, prctl: Callable[..., int], output: int, errors: int, complaint: int) -> None:
        """Never returns."""
        command = self._spec["command"]
        blame, what = _NOT_UNSTARTABLE, "the limits can't be set"
        try:
            os.setsid()
            self._limit(prctl)
            os.chdir(f"{self._folder}/work")
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            for source, target in ((null, 0), (output, 1), (errors, 2)):
                os.dup2(source, target)
            # What Python changed for itself.
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            blame, what = _UNSTARTABLE, command[0]
            os.execvpe(command[0], command, self._spec["env"])  # noqa: S606  the buyer gave arguments
        except OSError as error:
            os.write(complaint, blame + f"{what}: {error.strerror}".encode())
        except BaseException as error:  # noqa: BLE001  the top of a process
            os.write(complaint, blame + f"{what}: {error}".encode())
        finally:
            os._exit(127)

    def _limit(self, prctl: Callable[..., int]) -> None:
        spec = self._spec
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
        adjustment = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(adjustment, str(spec["oom_score_adj"]).encode())
        os.close(adjustment)
        os.umask(0o077)
        signal.set_wakeup_fd(-1)


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
