"""An executor that runs nothing: each attempt follows a script. It keeps the contract of the real ones."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from agent.domain.attempt import (
    AttemptKey,
    EndReason,
    Isolation,
    JobOrder,
    OutputChunk,
    OutputStream,
    Run,
)
from agent.domain.confidential import Confidential
from agent.executor.ports import Progress, RunEnd, StartError
from runtime.clock import Clock

_POLL_MS = 5


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a command would do."""

    output: tuple[tuple[OutputStream, bytes], ...] = ()
    # How long it runs by itself; None: until it is stopped.
    run_ms: int | None = 0
    exit_code: int = 0
    # What it exits with when it is asked to end; None: it does not listen.
    exit_code_on_stop: int | None = 143
    refusal: StartError | None = None
    # How long fetching it takes.
    prepare_ms: int = 0


@dataclass(kw_only=True)
class _FakeRun:
    script: Script
    run: Run
    paid_through_ms: int
    kill_at_ms: int | None = None
    stop_at_ms: int | None = None
    fused: bool = False
    end: RunEnd | None = None


@dataclass(kw_only=True)
class FakeWorld:
    """What runs. It outlives the executors that look at it, as processes and containers do."""

    scripts: dict[str, Script] = field(default_factory=dict)
    # Of an attempt that has none.
    otherwise: Script = field(default_factory=Script)
    runs: dict[AttemptKey, _FakeRun] = field(default_factory=dict)
    prepared: set[AttemptKey] = field(default_factory=set)
    starts: list[AttemptKey] = field(default_factory=list)
    told: dict[AttemptKey, Confidential] = field(default_factory=dict)


class FakeExecutor:
    """An Executor over a FakeWorld. An attempt's script is named by its id."""

    def __init__(self, world: FakeWorld, clock: Clock, isolation: Isolation = Isolation.CONTAINER) -> None:
        self._world = world
        self._clock = clock
        self.isolation = isolation

    async def describe(self) -> str:
        return "nothing at all"

    async def prepare(
        self, order: JobOrder, progress: Progress, confidential: Confidential | None = None
    ) -> None:
        script = self._script(order)
        progress("preparing nothing")
        await self._clock.sleep_ms(script.prepare_ms)
        self._world.prepared.add(order.key)
        if confidential is not None:
            self._world.told[order.key] = confidential

    async def start(self, order: JobOrder, paid_through_ms: int) -> Run:
        found = self._world.runs.get(order.key)
        if found is not None:
            return found.run
        script = self._script(order)
        if script.refusal is not None:
            raise script.refusal
        if order.key not in self._world.prepared:
            raise StartError(EndReason.START_FAILED, "it was not prepared")
        now_ms = self._clock.boot_ms()
        run = Run(run_id=f"fake-{order.key}-{now_ms}", start_boot_ms=now_ms, boot_id=self._clock.boot_id)
        self._world.starts.append(order.key)
        self._world.runs[order.key] = _FakeRun(script=script, run=run, paid_through_ms=paid_through_ms)
        return run

    async def find(self, order: JobOrder) -> Run | None:
        found = self._world.runs.get(order.key)
        return None if found is None else found.run

    async def output(self, order: JobOrder, offset: int) -> AsyncIterator[tuple[OutputChunk, ...]]:
        chunks = tuple(_from(self._world.runs[order.key].script.output, offset))
        if chunks:
            yield chunks
        while await self.is_running(order):
            await self._clock.sleep_ms(_POLL_MS)

    async def discard_output(self, order: JobOrder, offset: int) -> None:
        """It costs nothing to keep."""

    async def is_running(self, order: JobOrder) -> bool:
        found = self._world.runs.get(order.key)
        return found is not None and self._look(found) is None

    async def wait(self, order: JobOrder) -> RunEnd:
        while True:
            end = self._look(self._world.runs[order.key])
            if end is not None:
                return end
            await self._clock.sleep_ms(_POLL_MS)

    async def renew(self, order: JobOrder, paid_through_ms: int) -> None:
        found = self._world.runs.get(order.key)
        if found is not None:
            found.paid_through_ms = max(found.paid_through_ms, paid_through_ms)

    async def stop(self, order: JobOrder, grace_ms: int) -> None:
        found = self._world.runs.get(order.key)
        if found is not None and found.stop_at_ms is None:
            found.stop_at_ms = self._clock.boot_ms()
            found.kill_at_ms = found.stop_at_ms + grace_ms

    async def destroy(self, key: AttemptKey) -> None:
        self._world.runs.pop(key, None)
        self._world.prepared.discard(key)

    async def held(self) -> frozenset[AttemptKey]:
        return frozenset(self._world.runs) | frozenset(self._world.prepared)

    async def look(self) -> None:
        """Nothing is there to get out."""

    async def close(self) -> None:
        await asyncio.sleep(0)

    def _script(self, order: JobOrder) -> Script:
        return self._world.scripts.get(order.key.attempt_id, self._world.otherwise)

    def _look(self, found: _FakeRun) -> RunEnd | None:
        """What has become of it by now."""
        if found.end is None:
            run_ms = self._clock.boot_ms() - found.run.start_boot_ms
            script = found.script
            if script.run_ms is not None and run_ms >= script.run_ms:
                found.end = _ended(EndReason.EXITED, script.run_ms, script.exit_code)
            elif found.stop_at_ms is None and run_ms >= found.paid_through_ms:
                found.fused = True
                found.stop_at_ms = found.run.start_boot_ms + found.paid_through_ms
                found.kill_at_ms = found.stop_at_ms
            if found.end is None and found.stop_at_ms is not None and found.kill_at_ms is not None:
                found.end = self._stopped(found, found.stop_at_ms, found.kill_at_ms)
        return found.end

    def _stopped(self, found: _FakeRun, stop_at_ms: int, kill_at_ms: int) -> RunEnd | None:
        reason = EndReason.PAID_THROUGH if found.fused else EndReason.EXITED
        if found.script.exit_code_on_stop is not None:
            run_ms = stop_at_ms - found.run.start_boot_ms
            return _ended(reason, run_ms, found.script.exit_code_on_stop)
        if self._clock.boot_ms() >= kill_at_ms:
            return _ended(reason, kill_at_ms - found.run.start_boot_ms, 137)
        return None


def _ended(reason: EndReason, run_ms: int, exit_code: int) -> RunEnd:
    return RunEnd(reason=reason, detail="", run_ms=run_ms, exit_code=exit_code)


def _from(output: Iterable[tuple[OutputStream, bytes]], offset: int) -> Iterable[OutputChunk]:
    begin = 0
    for stream, data in output:
        if begin + len(data) > offset:
            start = max(begin, offset)
            yield OutputChunk(offset=start, stream=stream, data=data[start - begin :])
        begin += len(data)
