"""Runs jobs as child processes: no isolation, for people's own machines."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from agent.domain.attempt import AttemptKey, EndReason, Isolation, JobOrder, OutputChunk, Run
from agent.domain.confidential import Confidential
from agent.domain.gpu import is_simulated
from agent.executor.devices import is_alive
from agent.executor.ports import Progress, RunEnd, StartError
from agent.executor.runs import SupervisedRuns
from runtime.clock import Clock

_NOFILE = 4_096
_NICE = 5
_OOM_SCORE_ADJ = 500
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Every process of a run carries its folder, so that what a killed supervisor left can be found. Another agent
# on the same machine has other folders, whatever its attempts are called.
_MARK = "USANCE_RUN"
_KILLED_AGAIN_S = 0.01
_KILLED_MOST = 500  # passes; what outlives them is stuck in the kernel, and dies when that lets go


class ProcessExecutor:
    """An Executor over supervised child processes."""

    isolation = Isolation.PROCESS

    def __init__(self, folder: Path, clock: Clock, output_bytes_max: int = 0) -> None:
        self._runs = SupervisedRuns(folder, clock, output_bytes_max)

    async def describe(self) -> str:
        return "child processes, no isolation"

    async def prepare(
        self,
        order: JobOrder,
        progress: Progress,
        confidential: Confidential | None = None,  # noqa: ARG002 - there is no place for it
    ) -> None:
        if order.isolation_min is not Isolation.PROCESS:
            raise StartError(
                EndReason.START_FAILED, "the job wants a container, and this host only runs processes"
            )
        if order.is_confidential:
            raise StartError(EndReason.START_FAILED, "the job has secrets, and this host has no containers")
        progress("making the working folder")
        (self._runs.make_folder(order.key) / "work").mkdir(mode=0o700, exist_ok=True)

    async def start(self, order: JobOrder, paid_through_ms: int) -> Run:
        spec: dict[str, object] = {
            "command": list(order.command),
            "env": environment(order, self._runs.of(order.key)),
            "memory_bytes": order.memory_bytes,
            "cpu_count": -(-order.cpu_milli // 1_000),
            "nofile": _NOFILE,
            "nice": _NICE,
            "oom_score_adj": _OOM_SCORE_ADJ,
        }
        return await self._runs.start(order, spec, paid_through_ms)

    async def find(self, order: JobOrder) -> Run | None:
        return self._runs.find(order.key)

    def output(self, order: JobOrder, offset: int) -> AsyncIterator[tuple[OutputChunk, ...]]:
        return self._runs.output(order.key, offset)

    async def discard_output(self, order: JobOrder, offset: int) -> None:
        self._runs.discard_output(order.key, offset)

    async def is_running(self, order: JobOrder) -> bool:
        run = self._runs.find(order.key)
        if run is None or not self._runs.is_supervised(order.key) or self._runs.has_ended(order.key):
            return False
        # Its supervisor may be slow to see the end, or to tell it; the kernel is not.
        return is_alive(_pid_of(run))

    async def wait(self, order: JobOrder) -> RunEnd:
        end = await self._runs.wait(order.key)
        if end is not None:
            return end
        # The command itself died with its supervisor; what it had started may not have.
        await _end_marked(self._runs.of(order.key))
        return RunEnd(
            reason=EndReason.HOST_LOST, detail="the run's supervisor was killed", run_ms=None, exit_code=None
        )

    async def renew(self, order: JobOrder, paid_through_ms: int) -> None:
        self._runs.renew(order.key, paid_through_ms)

    async def stop(self, order: JobOrder, grace_ms: int) -> None:
        self._runs.stop(order.key, grace_ms)

    async def destroy(self, key: AttemptKey) -> None:
        if self._runs.of(key).exists():
            await self._runs.end_now(key)
            if not self._runs.is_cleared(key):
                await _end_marked(self._runs.of(key))
            await self._runs.remove(key)

    async def held(self) -> frozenset[AttemptKey]:
        return self._runs.held()

    async def look(self) -> None:
        """Nothing keeps a child process in."""

    async def close(self) -> None:
        self._runs.let_go()


def _pid_of(run: Run) -> int:
    """The supervisor made it the second part of the run's name."""
    return int(run.run_id.split("-")[1])


def environment(order: JobOrder, folder: Path) -> dict[str, str]:
    """What the command finds in its environment. The agent's own variables win over the buyer's."""
    home = str(folder / "work")
    simulated = [uuid for uuid in order.gpu_uuids if is_simulated(uuid)]
    real = [uuid for uuid in order.gpu_uuids if not is_simulated(uuid)]
    return {
        "PATH": _PATH,
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        **order.env,
        "CUDA_VISIBLE_DEVICES": ",".join(real),
        "USANCE_SIMULATED_GPUS": ",".join(simulated),
        _MARK: str(folder),
    }


async def _end_marked(folder: Path) -> None:
    """Kill what carries the mark until nothing does: what forks meanwhile was not yet there to be killed."""
    for _ in range(_KILLED_MOST):
        if not await asyncio.to_thread(_kill_marked, folder):
            return
        await asyncio.sleep(_KILLED_AGAIN_S)


def _kill_marked(folder: Path) -> bool:
    """Kill every process that carries the mark; whether there was one. The dying still show for a moment."""
    mark = f"{_MARK}={folder}".encode()
    found = False
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found = True
                os.kill(int(entry.name), signal.SIGKILL)
    return found
