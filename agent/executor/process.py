"""Runs jobs as child processes: no isolation, for people's own machines. See supervisor.py for the files."""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.domain.attempt import AttemptKey, EndReason, Isolation, JobOrder, OutputChunk, Run
from agent.domain.gpu import is_simulated
from agent.executor import supervisor
from agent.executor.frames import OutputReader, discard
from agent.executor.ports import Progress, RunEnd, StartError
from runtime.clock import Clock

# struct flock of 64-bit Linux.
_FLOCK = struct.Struct("hhqqi")
_POLL_MS = 40
_START_WAIT_MS = 20_000
_END_WAIT_MS = 10_000
_NOFILE = 4_096
_NICE = 5
_OOM_SCORE_ADJ = 500
_FILE_BYTES = 1 << 20
_FILES_MAX = 8
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Every process of a run carries it, so that what a killed supervisor left can be found.
_MARK = "USANCE_ATTEMPT"


@dataclass(frozen=True, kw_only=True)
class _Control:
    paid_through_ms: int
    grace_ms: int
    stop: bool


class ProcessExecutor:
    """An Executor over supervised child processes."""

    isolation = Isolation.PROCESS

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        # Our own children, to be reaped; those of an agent before us belong to init.
        self._supervisors: dict[AttemptKey, subprocess.Popen[bytes]] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def describe(self) -> str:
        return "child processes, no isolation"

    async def prepare(self, order: JobOrder, progress: Progress) -> None:
        if order.isolation_min is not Isolation.PROCESS:
            raise StartError(
                EndReason.START_FAILED, "the job wants a container, and this host only runs processes"
            )
        progress("making the working folder")
        folder = self._of(order.key)
        for path in (folder, folder / "work", folder / "output"):
            path.mkdir(mode=0o700, exist_ok=True)
        if not (folder / "wake").exists():
            os.mkfifo(folder / "wake", 0o600)

    async def start(self, order: JobOrder, paid_through_ms: int) -> Run:
        folder = self._of(order.key)
        found = await self.find(order)
        if found is not None:
            return found
        if not self._is_alive(order.key) and not (folder / "exit.json").exists():
            self._launch(order, paid_through_ms)
        return await self._started(order)

    def _launch(self, order: JobOrder, paid_through_ms: int) -> None:
        folder = self._of(order.key)
        supervisor.write_whole(folder / "spec.json", self._spec(order))
        self._control(
            order.key,
            _Control(paid_through_ms=paid_through_ms, grace_ms=order.stop_grace_ms, stop=False),
        )
        with (folder / "supervisor.log").open("ab") as log:
            self._supervisors[order.key] = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )

    async def _started(self, order: JobOrder) -> Run:
        folder = self._of(order.key)
        give_up_ms = self._clock.boot_ms() + _START_WAIT_MS
        while self._clock.boot_ms() < give_up_ms:
            found = await self.find(order)
            if found is not None:
                return found
            exit_ = _read(folder / "exit.json")
            if exit_ is not None:
                if "unstartable" in exit_:
                    raise StartError(EndReason.COMMAND_UNSTARTABLE, str(exit_["unstartable"]))
                raise StartError(EndReason.START_FAILED, str(exit_.get("never_started", "it did not start")))
            process = self._supervisors.get(order.key)
            if process is not None and process.poll() is not None and not self._is_alive(order.key):
                break
            await self._clock.sleep_ms(5)
        # Should it still come up, it finds that it must not run.
        self._control(order.key, _Control(paid_through_ms=0, grace_ms=0, stop=True))
        raise StartError(
            EndReason.START_FAILED, f"the supervisor did not start: {self._complaint(order.key)}"
        )

    async def find(self, order: JobOrder) -> Run | None:
        started = _read(self._of(order.key) / "started.json")
        if started is None:
            return None
        return Run(
            run_id=f"process-{started['pid']}-{started['start_boot_ms']}",
            start_boot_ms=int(str(started["start_boot_ms"])),
            boot_id=str(started["boot_id"]),
        )

    async def output(self, order: JobOrder, offset: int) -> AsyncIterator[tuple[OutputChunk, ...]]:
        reader = OutputReader(self._of(order.key) / "output", offset)
        try:
            while True:
                # Looked at before the last read: what a dead supervisor wrote is complete by then.
                alive = self._is_alive(order.key)
                found = reader.read()
                if found:
                    yield tuple(found)
                if reader.ended or (not alive and not found):
                    return
                if not found:
                    await self._clock.sleep_ms(_POLL_MS)
        finally:
            reader.close()

    async def discard_output(self, order: JobOrder, offset: int) -> None:
        if discard(self._of(order.key) / "output", offset):
            self._wake(order.key)

    async def is_running(self, order: JobOrder) -> bool:
        return self._is_alive(order.key) and not (self._of(order.key) / "exit.json").exists()

    async def wait(self, order: JobOrder) -> RunEnd:
        folder = self._of(order.key)
        while True:
            alive = self._is_alive(order.key)
            exit_ = _read(folder / "exit.json")
            if exit_ is not None:
                await self._reaped(order.key)
                return _run_end(exit_)
            if not alive:
                self._kill_marked(order.key)
                return RunEnd(
                    reason=EndReason.HOST_LOST,
                    detail="the host restarted, or the run's supervisor was killed",
                    run_ms=None,
                    exit_code=None,
                )
            await self._clock.sleep_ms(_POLL_MS)

    async def renew(self, order: JobOrder, paid_through_ms: int) -> None:
        control = self._read_control(order.key)
        if control is not None and paid_through_ms > control.paid_through_ms:
            self._control(
                order.key,
                _Control(paid_through_ms=paid_through_ms, grace_ms=control.grace_ms, stop=control.stop),
            )

    async def stop(self, order: JobOrder, grace_ms: int) -> None:
        control = self._read_control(order.key)
        if control is not None and not control.stop:
            self._control(
                order.key,
                _Control(paid_through_ms=control.paid_through_ms, grace_ms=grace_ms, stop=True),
            )

    async def destroy(self, key: AttemptKey) -> None:
        folder = self._of(key)
        if not folder.exists():
            return
        if self._is_alive(key):
            self._control(key, _Control(paid_through_ms=0, grace_ms=0, stop=True))
            give_up_ms = self._clock.boot_ms() + _END_WAIT_MS
            while self._is_alive(key) and self._clock.boot_ms() < give_up_ms:
                await self._clock.sleep_ms(_POLL_MS)
        self._kill_marked(key)
        await self._reaped(key)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def held(self) -> frozenset[AttemptKey]:
        keys = set()
        for folder in self._folder.iterdir():
            attempt_id, _, epoch = folder.name.rpartition(".")
            if attempt_id and epoch.isdigit():
                keys.add(AttemptKey(attempt_id=attempt_id, epoch=int(epoch)))
        return frozenset(keys)

    async def close(self) -> None:
        # Supervisors go on without us; Popen would complain of them when it is collected.
        for process in self._supervisors.values():
            if process.poll() is None:
                process.returncode = 0

    def _of(self, key: AttemptKey) -> Path:
        return self._folder / str(key)

    def _spec(self, order: JobOrder) -> dict[str, object]:
        return {
            "command": list(order.command),
            "env": environment(order, self._of(order.key) / "work"),
            "boot_id": self._clock.boot_id,
            "memory_bytes": order.memory_bytes,
            "cpu_count": -(-order.cpu_milli // 1_000),
            "nofile": _NOFILE,
            "nice": _NICE,
            "oom_score_adj": _OOM_SCORE_ADJ,
            "file_bytes": _FILE_BYTES,
            "files_max": _FILES_MAX,
        }

    def _read_control(self, key: AttemptKey) -> _Control | None:
        fields = _read(self._of(key) / "control.json")
        if fields is None:
            return None
        return _Control(
            paid_through_ms=int(str(fields["paid_through_ms"])),
            grace_ms=int(str(fields["grace_ms"])),
            stop=bool(fields["stop"]),
        )

    def _control(self, key: AttemptKey, control: _Control) -> None:
        supervisor.write_whole(
            self._of(key) / "control.json",
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
            wake = os.open(self._of(key) / "wake", os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(wake, b"!")
            finally:
                os.close(wake)

    def _is_alive(self, key: AttemptKey) -> bool:
        """Does a supervisor hold the run's lock? Asking does not take it."""
        try:
            lock = os.open(self._of(key) / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            answer = fcntl.fcntl(lock, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        finally:
            os.close(lock)
        kind: int = _FLOCK.unpack(answer)[0]
        return kind != fcntl.F_UNLCK

    async def _reaped(self, key: AttemptKey) -> None:
        process = self._supervisors.pop(key, None)
        if process is not None:
            await asyncio.to_thread(process.wait)

    def _complaint(self, key: AttemptKey) -> str:
        with contextlib.suppress(OSError):
            lines = (
                (self._of(key) / "supervisor.log").read_text(encoding="utf-8", errors="replace").splitlines()
            )
            if lines:
                return lines[-1]
        return "it says nothing"

    def _kill_marked(self, key: AttemptKey) -> None:
        mark = f"{_MARK}={key}".encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)


def environment(order: JobOrder, home: Path) -> dict[str, str]:
    """What the command finds in its environment. The agent's own variables win over the buyer's."""
    simulated = [uuid for uuid in order.gpu_uuids if is_simulated(uuid)]
    real = [uuid for uuid in order.gpu_uuids if not is_simulated(uuid)]
    return {
        "PATH": _PATH,
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        **order.env,
        "CUDA_VISIBLE_DEVICES": ",".join(real),
        "USANCE_SIMULATED_GPUS": ",".join(simulated),
        _MARK: str(order.key),
    }


def _read(path: Path) -> Mapping[str, object] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    assert isinstance(content, dict)
    return content


def _run_end(exit_: Mapping[str, object]) -> RunEnd:
    if "exit_code" not in exit_:
        return RunEnd(reason=EndReason.START_FAILED, detail="it did not start", run_ms=0, exit_code=None)
    fuse = exit_["stopped"] == "paid_through"
    return RunEnd(
        reason=EndReason.PAID_THROUGH if fuse else EndReason.EXITED,
        detail="the paid time is used up" if fuse else "",
        run_ms=int(str(exit_["run_ms"])),
        exit_code=int(str(exit_["exit_code"])),
    )
