"""Stands beside one command and outlives the agent; files.py says how the two speak.

The agent may be killed, upgraded or stuck; the command must go on, its output and its end must be kept, and
the run must still stop when what is paid for is used up. So each run has this small program, which needs
nothing but the standard library.
"""

import fcntl
import os
import select
import signal

from agent.executor.supervisor.clock import boot_ms
from agent.executor.supervisor.files import READ_BYTES, STREAM_END, News, Output, read_whole, write_whole
from agent.executor.supervisor.target import Ended, NeverStartedError, Started, Target

_PAUSE_MS = 50
# Reading control.json again now and then heals a lost wake-up.
_LOOK_MS = 5_000
_DRAIN_MS = 10_000
_KILL_AGAIN_MS = 1_000
# Who has heard of output looks for more at least so often.
_OUTPUT_NEWS_MS = 20


class Supervisor:
    """One run, from its start to its end."""

    def __init__(self, folder: str, target: Target, boot_id: str, news: News, output_bytes_max: int) -> None:
        self._folder = folder
        self._news = news
        self._output_news_at_ms = 0
        self._target = target
        self._boot_id = boot_id
        self._output_bytes_max = output_bytes_max
        # Opened for both ways, so that it never reads as ended when the agent goes away.
        self._wake = os.open(f"{folder}/wake", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._signals, signals_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(signals_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_terminate)
        self._told_to_stop = False
        self._stopped = ""
        self._kill_at_ms: int | None = None
        self._start_ms = 0
        self._paid_through_ms = 0
        self._grace_ms = 0

    def run(self) -> None:
        self._read_control()
        before = read_whole(f"{self._folder}/started.json")
        if before is not None:
            started = Started(run_id=before["run_id"], start_boot_ms=before["start_boot_ms"])
            self._target.resume(started)
        elif self._told_to_stop:
            self._never("it was stopped before it started", unstartable=False)
            return
        else:
            try:
                started = self._target.start()
            except NeverStartedError as error:
                self._never(str(error), unstartable=error.unstartable)
                return
            write_whole(
                f"{self._folder}/started.json",
                {"run_id": started.run_id, "start_boot_ms": started.start_boot_ms, "boot_id": self._boot_id},
            )
            self._news.tell()
        self._start_ms = started.start_boot_ms
        self._output = Output(f"{self._folder}/output", self._output_bytes_max)
        ended = self._watch()
        # At once: while it is not written the agent goes on metering.
        self._write_exit(ended)
        self._news.tell()
        cleared = self._target.clear_up()
        self._drain()
        self._finish(cleared=cleared)

    def _watch(self) -> Ended:
        while True:
            full = self._output.is_full()
            self._take_output(self._timeout_ms(full=full), with_output=not full)
            ended = self._target.ended()
            if ended is not None:
                return ended
            self._read_control()
            self._keep_time()

    def _drain(self) -> None:
        """Little is left after the end, so the limit of the backlog need not stop us."""
        until_ms = boot_ms() + _DRAIN_MS
        while not self._target.is_drained() and boot_ms() < until_ms:
            self._take_output(_PAUSE_MS, with_output=True)

    def _take_output(self, timeout_ms: int, *, with_output: bool) -> None:
        poll = select.poll()
        for descriptor in (self._wake, self._signals, *self._target.descriptors(with_output=with_output)):
            poll.register(descriptor, select.POLLIN)
        for alarm in self._target.alarms():
            poll.register(alarm, select.POLLPRI)
        ready = {descriptor for descriptor, _ in poll.poll(timeout_ms)}
        for own in ready & {self._wake, self._signals}:
            os.read(own, READ_BYTES)
        for stream, data in self._target.read(ready - {self._wake, self._signals}):
            self._output.write(stream, data)
            now_ms = boot_ms()
            if now_ms >= self._output_news_at_ms:
                self._output_news_at_ms = now_ms + _OUTPUT_NEWS_MS
                self._news.tell()

    def _timeout_ms(self, *, full: bool) -> int:
        due_ms = self._kill_at_ms
        if due_ms is None:
            due_ms = self._start_ms + self._paid_through_ms
        wait_ms = max(0, min(due_ms - boot_ms(), _LOOK_MS))
        hurry = full or not self._target.descriptors(with_output=True)
        return min(wait_ms, _PAUSE_MS) if hurry else wait_ms

    def _on_terminate(self, *_: object) -> None:
        self._told_to_stop = True

    def _read_control(self) -> None:
        control = read_whole(f"{self._folder}/control.json")
        assert control is not None
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
                self._target.terminate()
        if self._kill_at_ms is not None and now_ms >= self._kill_at_ms:
            self._target.kill()
            self._kill_at_ms = now_ms + _KILL_AGAIN_MS

    def _write_exit(self, ended: Ended) -> None:
        write_whole(
            f"{self._folder}/exit.json",
            {
                "exit_code": ended.exit_code,
                "run_ms": ended.run_ms,
                "out_of_memory": ended.out_of_memory,
                "lost": ended.lost,
                "unstartable": ended.unstartable,
                "note": ended.note,
                "stopped": self._stopped,
            },
        )

    def _never(self, detail: str, *, unstartable: bool) -> None:
        write_whole(f"{self._folder}/exit.json", {"never_started": detail, "unstartable": unstartable})
        self._output = Output(f"{self._folder}/output", self._output_bytes_max)
        self._finish(cleared=True)

    def _finish(self, *, cleared: bool) -> None:
        if cleared:
            os.unlink(f"{self._folder}/spec.json")
        self._output.write(STREAM_END, b"")
        self._news.tell()


def main(folder: str, news: int | None = None) -> None:
    """`news` is a descriptor, of which nobody but us is to have a copy: its end is ours."""
    if news is not None:
        fcntl.fcntl(news, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    lock = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # A record lock: others can ask who holds it without taking it, and the command does not inherit it.
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # the run has its supervisor
    if os.access(f"{folder}/exit.json", os.F_OK):
        return  # it is over
    spec = read_whole(f"{folder}/spec.json")
    assert spec is not None
    Supervisor(
        folder, _target(spec, folder), spec["boot_id"], News(news), spec.get("output_bytes_max", 0)
    ).run()


def _target(spec: dict[str, object], folder: str) -> Target:
    if "container" in spec:
        from agent.executor.supervisor.container import ContainerTarget

        return ContainerTarget(spec)
    from agent.executor.supervisor.process import ProcessTarget

    return ProcessTarget(spec, folder)
