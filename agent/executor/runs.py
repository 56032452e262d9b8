"""The agent's side of the folders through which it speaks with supervisors; supervisor/files.py says how."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agent.domain.attempt import AttemptKey, EndReason, JobOrder, OutputChunk, Run
from agent.executor.frames import OutputReader, discard
from agent.executor.launcher import Launcher, News
from agent.executor.ports import RunEnd, StartError
from agent.executor.supervisor.files import read_whole, write_whole
from runtime.clock import Clock

# How often files are looked at: often while something happens, less and less while nothing does.
_POLL_MS = 20
_POLL_MS_MAX = 160
# Where their supervisor tells us of news itself, looking only heals what we missed.
_LOOK_MS_MAX = 2_000
_START_WAIT_MS = 60_000
# A spawner that did nothing for so long is stuck.
_SPAWNER_WAIT_MS = 5_000
_END_WAIT_MS = 15_000
# struct flock of 64-bit Linux.
_FLOCK = struct.Struct("hhqqi")


@dataclass(frozen=True, kw_only=True)
class _Control:
    paid_through_ms: int
    grace_ms: int
    stop: bool


class SupervisedRuns:
    """All runs below one folder. Executors differ in what stands in `spec`, and in what they clean up."""

    def __init__(self, folder: Path, clock: Clock, output_bytes_max: int = 0) -> None:
        """`output_bytes_max` is the most that is kept of a run's output; 0 for all."""
        self._folder = folder
        self._clock = clock
        self._output_bytes_max = output_bytes_max
        self._launcher = Launcher()
        # Of the supervisors that we had started ourselves; those of an agent before us tell us nothing.
        self._news: dict[AttemptKey, News] = {}
        # Several may miss a supervisor at the same time.
        self._launching = asyncio.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def of(self, key: AttemptKey) -> Path:
        return self._folder / str(key)

    def _path(self, key: AttemptKey, name: str) -> str:
        """Of a file that is asked for again and again: no Path is made each time."""
        return f"{self._folder}/{key}/{name}"

    def _has(self, key: AttemptKey, name: str) -> bool:
        return os.access(self._path(key, name), os.F_OK)

    def make_folder(self, key: AttemptKey) -> Path:
        folder = self.of(key)
        for path in (folder, folder / "output"):
            path.mkdir(mode=0o700, exist_ok=True)
        if not (folder / "wake").exists():
            os.mkfifo(folder / "wake", 0o600)
        # The start comes next.
        self._launcher.warm_up()
        return folder

    async def start(self, order: JobOrder, spec: dict[str, object], paid_through_ms: int) -> Run:
        """Start it, once. Raises StartError."""
        ended = self._path(order.key, "exit.json")
        if not self.is_supervised(order.key) and read_whole(ended) is None:
            write_whole(
                self._path(order.key, "spec.json"),
                {**spec, "boot_id": self._clock.boot_id, "output_bytes_max": self._output_bytes_max},
            )
            first = _Control(paid_through_ms=paid_through_ms, grace_ms=order.stop_grace_ms, stop=False)
            self._control(order.key, first)
        await self._bring_up(
            order.key,
            until=lambda: self._has(order.key, "started.json") or self.has_ended(order.key),
            # The lock is its first deed: whoever did not get so far has started nothing.
            may_launch=lambda: not self._has(order.key, "lock"),
        )
        run = self.find(order.key)
        if run is not None:
            return run
        exit_ = read_whole(ended)
        if exit_ is not None:
            reason = EndReason.COMMAND_UNSTARTABLE if exit_.get("unstartable") else EndReason.START_FAILED
            raise StartError(reason, str(exit_.get("never_started", "it did not start")))
        # Should it come up yet, it finds that it must not run.
        self._control(order.key, _Control(paid_through_ms=0, grace_ms=0, stop=True))
        raise StartError(
            EndReason.START_FAILED, f"its supervisor did not start: {self._complaint(order.key)}"
        )

    def find(self, key: AttemptKey) -> Run | None:
        started = read_whole(self._path(key, "started.json"))
        if started is None:
            return None
        return Run(
            run_id=str(started["run_id"]),
            start_boot_ms=int(started["start_boot_ms"]),
            boot_id=str(started["boot_id"]),
        )

    def has_ended(self, key: AttemptKey) -> bool:
        return self._has(key, "exit.json")

    def is_supervised(self, key: AttemptKey) -> bool:
        """Does a supervisor hold the run's lock?"""
        return self.supervisor_pid(key) is not None

    def supervisor_pid(self, key: AttemptKey) -> int | None:
        """Who holds the run's lock. Asking does not take it."""
        try:
            lock = os.open(self._path(key, "lock"), os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            answer = fcntl.fcntl(lock, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        finally:
            os.close(lock)
        kind, _, _, _, pid = _FLOCK.unpack(answer)
        return None if kind == fcntl.F_UNLCK else int(pid)

    async def supervise_again(self, key: AttemptKey) -> None:
        """Where a run goes on without its supervisor, give it a new one. (One that is there stays.)"""
        async with self._launching:
            if self.find(key) is None or self.is_supervised(key) or self.has_ended(key):
                return
            await self._bring_up(
                key,
                until=lambda: self.is_supervised(key) or self.has_ended(key),
                may_launch=lambda: not self.is_supervised(key),
            )

    async def output(self, key: AttemptKey, offset: int) -> AsyncIterator[tuple[OutputChunk, ...]]:
        reader = OutputReader(self.of(key) / "output", offset)
        poll_ms = _POLL_MS
        try:
            while True:
                # Looked at before the last read: what a dead supervisor wrote is complete by then.
                heard, alive = self._heard(key), self.is_supervised(key)
                found = reader.read()
                if found:
                    yield tuple(found)
                    poll_ms = _POLL_MS
                elif reader.ended or not alive:
                    return
                else:
                    await self._pause(key, heard, poll_ms)
                    poll_ms = min(2 * poll_ms, self._poll_ms_max(key))
        finally:
            reader.close()

    def discard_output(self, key: AttemptKey, offset: int) -> None:
        if discard(self.of(key) / "output", offset):
            self._wake(key)

    async def wait(self, key: AttemptKey) -> RunEnd | None:
        """The end; None where the supervisor is dead and nobody can tell."""
        poll_ms = _POLL_MS
        while True:
            heard, alive = self._heard(key), self.is_supervised(key)
            exit_ = read_whole(self._path(key, "exit.json"))
            if exit_ is not None:
                return _run_end(exit_)
            if not alive:
                return None
            await self._pause(key, heard, poll_ms)
            poll_ms = min(poll_ms + 1, self._poll_ms_max(key))

    def renew(self, key: AttemptKey, paid_through_ms: int) -> None:
        control = self._read_control(key)
        if control is not None and paid_through_ms > control.paid_through_ms:
            self._control(key, replace(control, paid_through_ms=paid_through_ms))

    def stop(self, key: AttemptKey, grace_ms: int) -> None:
        control = self._read_control(key)
        if control is not None and not control.stop:
            self._control(key, replace(control, grace_ms=grace_ms, stop=True))

    async def end_now(self, key: AttemptKey) -> None:
        """Have the supervisor kill the run and go."""
        if self.is_supervised(key):
            self._control(key, _Control(paid_through_ms=0, grace_ms=0, stop=True))
            give_up_ms = self._clock.boot_ms() + _END_WAIT_MS
            while self.is_supervised(key) and self._clock.boot_ms() < give_up_ms:
                await self._clock.sleep_ms(_POLL_MS)
        pid = self.supervisor_pid(key)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            while self.is_supervised(key):
                await self._clock.sleep_ms(_POLL_MS)

    def is_cleared(self, key: AttemptKey) -> bool:
        """Is nothing of the run left, as its supervisor has seen to, or was there never any?"""
        return not self._has(key, "spec.json")

    async def remove(self, key: AttemptKey) -> None:
        news = self._news.pop(key, None)
        if news is not None:
            news.close()
        await asyncio.to_thread(shutil.rmtree, self.of(key), ignore_errors=True)

    def held(self) -> frozenset[AttemptKey]:
        keys = set()
        for folder in self._folder.iterdir():
            attempt_id, _, epoch = folder.name.rpartition(".")
            if attempt_id and epoch.isdigit():
                keys.add(AttemptKey(attempt_id=attempt_id, epoch=int(epoch)))
        return frozenset(keys)

    def let_go(self) -> None:
        """Forget them. They go on without us."""
        for news in self._news.values():
            news.close()
        self._news.clear()
        self._launcher.close()

    async def _bring_up(
        self, key: AttemptKey, *, until: Callable[[], bool], may_launch: Callable[[], bool]
    ) -> None:
        """Have a supervisor and wait for what it does; in vain where it dies before, or none comes."""
        began_ms, cold = self._clock.boot_ms(), False
        if not self.is_supervised(key) and not until():
            self._launch(key)
        while True:
            heard, gone = self._heard(key), self._is_gone(key)
            if until():
                return
            waited_ms = self._clock.boot_ms() - began_ms
            if (gone or waited_ms >= _SPAWNER_WAIT_MS) and not cold and may_launch():
                # A spawner that was killed takes along what was asked of it; one that is stuck, we kill.
                if not gone:
                    self._launcher.drop_spawner()
                cold = True
                self._launch(key, cold=True)
            elif gone or waited_ms >= _START_WAIT_MS:
                return
            else:
                await self._pause(key, heard, _POLL_MS)

    def _launch(self, key: AttemptKey, *, cold: bool = False) -> None:
        news = self._news.pop(key, None)
        if news is not None:
            news.close()
        self._news[key] = self._launcher.launch(self.of(key), cold=cold)

    def _is_gone(self, key: AttemptKey) -> bool:
        """Ours may have gone because the one of an agent before us was there first."""
        news = self._news.get(key)
        return (news is None or news.ended) and not self.is_supervised(key)

    def _heard(self, key: AttemptKey) -> int:
        """How much we have heard from the supervisor; to be asked before its files are looked at."""
        news = self._news.get(key)
        return news.count if news is not None else 0

    async def _pause(self, key: AttemptKey, heard: int, longest_ms: int) -> None:
        """Until there is news, where its supervisor tells us any, or that long."""
        news = self._news.get(key)
        if news is not None and not news.ended:
            await news.after(heard, self._clock, longest_ms)
        else:
            await self._clock.sleep_ms(longest_ms)

    def _poll_ms_max(self, key: AttemptKey) -> int:
        news = self._news.get(key)
        return _POLL_MS_MAX if news is None or news.ended else _LOOK_MS_MAX

    def _read_control(self, key: AttemptKey) -> _Control | None:
        fields = read_whole(self._path(key, "control.json"))
        return None if fields is None else _Control(**fields)

    def _control(self, key: AttemptKey, control: _Control) -> None:
        write_whole(
            self._path(key, "control.json"),
            {
                "paid_through_ms": control.paid_through_ms,
                "grace_ms": control.grace_ms,
                "stop": control.stop,
            },
        )
        self._wake(key)

    def _wake(self, key: AttemptKey) -> None:
        # Nobody reads: the supervisor is gone, or not there yet and will look at its files when it is.
        with contextlib.suppress(OSError):
            wake = os.open(self._path(key, "wake"), os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(wake, b"!")
            finally:
                os.close(wake)

    def _complaint(self, key: AttemptKey) -> str:
        with contextlib.suppress(OSError):
            text = (self.of(key) / "supervisor.log").read_text(encoding="utf-8", errors="replace")
            if text:
                return text.splitlines()[-1]
        return "it says nothing"


def _run_end(exit_: dict[str, object]) -> RunEnd:
    if "never_started" in exit_:
        return RunEnd(
            reason=EndReason.START_FAILED, detail=str(exit_["never_started"]), run_ms=0, exit_code=None
        )
    reason, detail = EndReason.EXITED, ""
    if exit_["lost"]:
        reason, detail = EndReason.HOST_LOST, str(exit_["lost"])
    elif exit_["unstartable"]:
        reason, detail = EndReason.COMMAND_UNSTARTABLE, str(exit_["unstartable"])
    elif exit_["stopped"] == "paid_through":
        reason, detail = EndReason.PAID_THROUGH, "the paid time was used up"
    elif exit_["out_of_memory"]:
        if exit_["exit_code"] == 0:
            # It has come to terms with it.
            detail = "a process of it was killed for want of memory"
        else:
            reason, detail = EndReason.OUT_OF_MEMORY, "it used more memory than it had asked for"
    code = exit_["exit_code"]
    return RunEnd(
        reason=reason,
        # What else a person should know, such as output that is missing, however it ended.
        detail="; ".join(filter(None, [detail, str(exit_["note"])])),
        run_ms=int(str(exit_["run_ms"])),
        exit_code=None if code is None else int(str(code)),
    )
