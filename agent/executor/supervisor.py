"""Runs one command and outlives the agent: `python -I -S supervisor.py FOLDER`, standard library alone.

The agent may be killed, upgraded or stuck; the command must go on, its output and its end must be kept, and
the run must still stop when what is paid for is used up. So this small program stands between them. They
speak through files in FOLDER, because files need nobody on the other side:

  spec.json      from the agent, once: what to run and within which limits
  control.json   from the agent, replaced as a whole: paid_through_ms, grace_ms, stop
  wake           a FIFO; a byte in it says that control.json or the backlog changed
  lock           held for as long as we live: who holds it is the run, a second supervisor leaves
  started.json   from us: when the command started
  output/        from us: frames of output, in files named by the offset of their first byte. The agent
                 removes those it has stored; when too many lie there we stop reading, and the command blocks
  exit.json      from us: how and when the command ended

A frame is one byte of stream (1 standard output, 2 standard error, 0 the end of everything), four bytes of
length, and the bytes. All clocks here are CLOCK_BOOTTIME.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FRAME = struct.Struct(">BI")
STREAM_END = 0
STREAM_STDOUT = 1
STREAM_STDERR = 2
READ_BYTES = 65_536
PAUSE_MS = 50
# Reading control.json again now and then heals a lost wake-up.
LOOK_MS = 5_000
LEFTOVER_MS = 10_000

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def write_whole(path: Path, content: dict[str, Any]) -> None:
    """Readers see the old content or the new, never a part."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content), encoding="utf-8")
    fresh.replace(path)


class Output:
    """Frames in numbered files."""

    def __init__(self, folder: Path, file_bytes: int, files_max: int) -> None:
        self._folder = folder
        self._file_bytes = file_bytes
        self._files_max = files_max
        self._offset = 0
        self._begin_file()

    def _begin_file(self) -> None:
        self._file = (self._folder / f"{self._offset:020d}").open("wb", buffering=0)
        self._file_offset = self._offset

    def write(self, stream: int, data: bytes) -> None:
        if self._offset - self._file_offset >= self._file_bytes:
            self._file.close()
            self._begin_file()
        self._file.write(FRAME.pack(stream, len(data)) + data)
        self._offset += len(data)

    def is_full(self) -> bool:
        if self._offset - self._file_offset < self._file_bytes:
            return False
        return sum(1 for _ in self._folder.iterdir()) >= self._files_max


class Supervisor:
    """One run, from its start to its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        self._output = Output(folder / "output", self._spec["file_bytes"], self._spec["files_max"])
        # Opened for both ways, so that it never reads as ended when the agent goes away.
        self._wake = os.open(folder / "wake", os.O_RDWR | os.O_NONBLOCK)
        self._signals, signals_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(signals_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_terminate)
        self._told_to_stop = False
        self._stopped = ""
        self._kill_at_ms: int | None = None
        self._start_ms = 0
        self._exit: dict[str, Any] | None = None

    def run(self) -> None:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        # What the command leaves behind becomes our child instead of init's, so we can find and end it.
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._read_control()
        if self._told_to_stop:
            self._never({"never_started": "it was stopped before it started"})
            return
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
            self._never({"unstartable": f"{self._spec['command'][0]}: {error.strerror}"})
            return
        except subprocess.SubprocessError as error:
            self._never({"never_started": f"the limits can't be set: {error}"})
            return
        self._start_ms = boot_ms()
        self._child = process.pid
        started = {"start_boot_ms": self._start_ms, "pid": self._child, "boot_id": self._spec["boot_id"]}
        write_whole(self._folder / "started.json", started)
        assert process.stdout is not None
        assert process.stderr is not None
        self._pipes = {process.stdout.fileno(): STREAM_STDOUT, process.stderr.fileno(): STREAM_STDERR}
        for pipe in self._pipes:
            os.set_blocking(pipe, False)
        self._watch()
        process.returncode = 0  # reaped by us
        self._output.write(STREAM_END, b"")

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

    def _watch(self) -> None:
        """Until the command has ended and its output is drained."""
        while self._exit is None:
            full = self._output.is_full()
            ready = self._wait(self._timeout_ms(full), [] if full else list(self._pipes))
            self._reap()
            if self._exit is None:
                self._read_control()
                self._keep_time()
            for pipe in ready:
                self._read(pipe)
        self._kill_all()
        until_ms = boot_ms() + LEFTOVER_MS
        # At most what the pipes hold is left, so the limit of the backlog need not stop us.
        while self._pipes and boot_ms() < until_ms:
            for pipe in self._wait(PAUSE_MS, list(self._pipes)):
                self._read(pipe)

    def _wait(self, timeout_ms: int, pipes: list[int]) -> list[int]:
        poll = select.poll()
        for descriptor in (self._wake, self._signals, *pipes):
            poll.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(timeout_ms)]
        for descriptor in ready:
            if descriptor in (self._wake, self._signals):
                os.read(descriptor, READ_BYTES)
        return [descriptor for descriptor in ready if descriptor in pipes]

    def _timeout_ms(self, full: bool) -> int:
        due_ms = self._kill_at_ms
        if due_ms is None:
            due_ms = self._start_ms + self._paid_through_ms
        wait_ms = max(0, min(due_ms - boot_ms(), LOOK_MS))
        return min(wait_ms, PAUSE_MS) if full else wait_ms

    def _read(self, pipe: int) -> None:
        try:
            data = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._output.write(self._pipes[pipe], data)
        else:
            del self._pipes[pipe]

    def _on_terminate(self, *_: object) -> None:
        self._told_to_stop = True

    def _read_control(self) -> None:
        control = json.loads((self._folder / "control.json").read_text(encoding="utf-8"))
        self._paid_through_ms = int(control["paid_through_ms"])
        self._grace_ms = int(control["grace_ms"])
        self._told_to_stop = self._told_to_stop or bool(control["stop"])

    def _keep_time(self) -> None:
        now_ms = boot_ms()
        if not self._stopped:
            if self._told_to_stop:
                self._stopped = "asked"
            elif now_ms - self._start_ms >= self._paid_through_ms:
                self._stopped = "paid_through"
            if self._stopped:
                self._kill_at_ms = now_ms + self._grace_ms
                self._signal_group(signal.SIGTERM)
        if self._kill_at_ms is not None and now_ms >= self._kill_at_ms:
            for pid in self._descendants():
                self._kill(pid)
            self._kill_at_ms = now_ms + 1_000

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child, number)

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
                end_ms = boot_ms()
                self._exit = {
                    "exit_code": code if code >= 0 else 128 - code,
                    "run_ms": end_ms - self._start_ms,
                    "stopped": self._stopped,
                }
                # At once: while it is not written the agent goes on metering.
                write_whole(self._folder / "exit.json", self._exit)

    def _kill_all(self) -> None:
        """Nothing that the command started outlives it."""
        until_ms = boot_ms() + LEFTOVER_MS
        while boot_ms() < until_ms:
            self._reap()
            left = self._descendants()
            if not left:
                return
            for pid in left:
                self._kill(pid)
            time.sleep(0.005)

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _descendants(self) -> list[int]:
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

    def _never(self, why: dict[str, str]) -> None:
        write_whole(self._folder / "exit.json", why)
        self._output.write(STREAM_END, b"")


def main() -> None:
    folder = Path(sys.argv[1])
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # A record lock: others can ask who holds it without taking it, and the command does not inherit it.
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # the run has its supervisor
    if (folder / "started.json").exists() or (folder / "exit.json").exists():
        return  # it ran before; it must not run twice
    Supervisor(folder).run()


if __name__ == "__main__":
    main()
