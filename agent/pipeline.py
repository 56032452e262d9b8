"""One attempt on this host, from order to end, as named steps that a restarted agent can enter again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from agent.domain.attempt import (
    AttemptKey,
    AttemptReport,
    AttemptState,
    Ending,
    EndReason,
    Run,
)
from agent.domain.confidential import Confidential
from agent.domain.gpu import GpuSample
from agent.domain.reducer import Held
from agent.executor.ports import Executor, RunEnd, StartError
from agent.memory import Memory, MemoryFile
from agent.meter import MARGIN_MS, Meter
from agent.signal import Signal
from agent.spool import OutputSpool, UsageJournal
from runtime.clock import Clock

log = logging.getLogger(__name__)

DETAIL_BYTES_MAX = 1_024
# How long a killed process may take to go before we believe that it never will.
_UNDEAD_MS = 30_000


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What every attempt works with."""

    executor: Executor
    clock: Clock
    record_ms: int
    output_waiting_bytes_max: int
    # Returns when nobody else uses the attempt's GPUs and they are fit; raises StartError where they are not.
    gpus_ready: Callable[["Attempt"], Awaitable[None]]
    # What of its order is never kept with it; waits until the coordinator has told it.
    confidential: Callable[["Attempt"], Awaitable[Confidential]]
    # Why the attempt's GPUs failed under it; empty where they did not.
    why_gpus_failed: Callable[["Attempt"], Awaitable[str]]
    # An attempt's state has changed; or only what it does or awaits.
    on_change: Callable[[], None]
    on_progress: Callable[[], None]
    # There is usage or output to send.
    on_evidence: Callable[[], None]
    # There is a record of a run that goes on: it need not be sent before those of other runs.
    on_record: Callable[[], None]


class Attempt:
    """Holds one attempt. `run` is its whole life; everything else may be called beside it, at any time."""

    def __init__(self, file: MemoryFile, memory: Memory, around: Surroundings) -> None:
        self.folder = folder = file.folder
        self._file = file
        self.order = memory.order
        self.journal = UsageJournal(folder / "usage.journal", memory.order.key)
        self.spool = OutputSpool(folder / "output.spool", memory.order.key, around.output_waiting_bytes_max)
        self._memory = memory
        self._around = around
        self._executor = around.executor
        self._clock = around.clock
        self._detail = ""
        self._meter: Meter | None = None
        self._end: RunEnd | None = None
        self._has_gpus = False
        # Where the run time stood when its GPUs failed, if we saw it: nobody pays for what comes after.
        self._failed_run_ms: int | None = None
        self._changed = Signal()
        self._saving = asyncio.Lock()

    @property
    def key(self) -> AttemptKey:
        return self.order.key

    @property
    def state(self) -> AttemptState:
        if self._memory.ending is not None:
            return AttemptState.ENDED
        if self._memory.run is None:
            return AttemptState.PREPARING
        stops = self._memory.stop_reason is not None or self._end is not None
        return AttemptState.STOPPING if stops else AttemptState.RUNNING

    @property
    def has_gpus(self) -> bool:
        """Its GPUs are its own now."""
        return self._memory.ending is None and (self._has_gpus or self._memory.run is not None)

    def held(self) -> Held:
        return Held(
            key=self.key,
            state=self.state,
            paid_through_ms=self._memory.paid_through_ms,
            stop_reason=self._memory.stop_reason,
            usage_number_acknowledged=self.journal.number_acknowledged,
            log_offset_acknowledged=self.spool.offset_acknowledged,
            is_abandoned=self.spool.is_abandoned,
        )

    def report(self) -> AttemptReport:
        ending = self._memory.ending
        return AttemptReport(
            key=self.key,
            state=self.state,
            container_id=self._memory.run.run_id if self._memory.run else "",
            run_ms=ending.run_ms if ending else self._run_ms(),
            detail=ending.detail if ending else self._detail,
            ending=ending,
        )

    def _run_ms(self) -> int:
        if self._end is not None and self._end.run_ms is not None:
            return self._end.run_ms
        return self._until_failure(self._meter.run_ms()) if self._meter else self.journal.end_ms

    def _until_failure(self, run_ms: int) -> int:
        if self._memory.stop_reason is not EndReason.GPU_LOST:
            return run_ms
        return min(run_ms, max(self.journal.end_ms, self._failed_run_ms or 0))

    def add_samples(self, samples: Iterable[GpuSample]) -> None:
        if self._meter is not None:
            self._meter.add(samples)

    async def stop(self, reason: EndReason) -> None:
        """Ask for the end. The first reason stands."""
        if self._memory.stop_reason is None and self._memory.ending is None:
            await self._remember(replace(self._memory, stop_reason=reason))
            self._tell()

    async def fail(self, why: str) -> None:
        """Its GPUs have failed: end it for that. The run time stands still from now on."""
        if self._memory.stop_reason is None and self._memory.ending is None:
            self._failed_run_ms = self._run_ms()
            await self._remember(
                replace(self._memory, stop_reason=EndReason.GPU_LOST, stop_detail=_short(why))
            )
            self._tell()

    async def abandon(self) -> None:
        """Ask for the end of what is over for the coordinator, which takes no more of its output."""
        self.spool.abandon()
        await self.stop(EndReason.SUPERSEDED)

    async def extend(self, paid_through_ms: int) -> None:
        if paid_through_ms > self._memory.paid_through_ms:
            await self._remember(replace(self._memory, paid_through_ms=paid_through_ms))
            self._changed.set()
            if self._memory.run is not None:
                await self._executor.renew(self.order, paid_through_ms)

    async def acknowledge(self, usage_number: int, log_offset: int) -> None:
        self.spool.acknowledge(log_offset)
        await self.journal.acknowledge(usage_number)

    async def take_back(self, usage_number: int, log_offset: int) -> None:
        """No more than this is acknowledged any longer."""
        self.spool.take_back(log_offset)
        await self.journal.take_back(usage_number)

    async def close(self) -> None:
        await self.journal.close()
        await self.spool.close()
        self._file.close()

    async def run(self) -> None:
        """Live through what is left of the attempt. Cancelling it leaves what runs alone."""
        if self._memory.ending is not None:
            return
        try:
            run = self._memory.run or await self._begin()
        except StartError as error:
            await self._finish(RunEnd(reason=error.reason, detail=str(error), run_ms=0, exit_code=None))
            return
        if run is None:
            await self._finish(
                RunEnd(reason=EndReason.SUPERSEDED, detail="stopped before it ran", run_ms=0, exit_code=None)
            )
            return
        await self._finish(await self._explained(await self._accompany(run)))

    async def _begin(self) -> Run | None:
        """Get the command to run; None where it should stop before that."""
        # An agent before us may have been killed between the start and its note of it.
        run = await self._executor.find(self.order)
        if run is None:
            if not await self._unless_stopped(self._make_ready()):
                return None
            run = await self._executor.start(self.order, self._memory.paid_through_ms)
        await self._remember(replace(self._memory, run=run))
        return run

    async def _make_ready(self) -> None:
        await self._around.gpus_ready(self)
        self._has_gpus = True
        known = await self._around.confidential(self) if self.order.is_confidential else None
        await self._executor.prepare(self.order, self.progress, known)

    def progress(self, detail: str) -> None:
        """Say what is being done or awaited."""
        if detail != self._detail:
            self._detail = detail
            self._around.on_progress()

    async def _unless_stopped(self, step: Awaitable[None]) -> bool:
        """Take a step, or leave it when the attempt should stop. Says whether it was taken."""
        task = asyncio.ensure_future(step)
        try:
            while not task.done() and self._memory.stop_reason is None:
                changed = self._changed.next()
                await asyncio.wait({task, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if self._memory.stop_reason is not None:
            return False
        task.result()
        return True

    async def _accompany(self, run: Run) -> RunEnd:
        """Be with a run until its end is known, its time is metered and its output is here."""
        found = await self._executor.find(self.order)
        if run.boot_id != self._clock.boot_id or found is None or found.run_id != run.run_id:
            why = (
                "the host was restarted"
                if run.boot_id != self._clock.boot_id
                else "the run is gone from the host"
            )
            return RunEnd(reason=EndReason.HOST_LOST, detail=why, run_ms=None, exit_code=None)
        self._meter = Meter(
            run=run,
            journal=self.journal,
            gpu_uuids=self.order.gpu_uuids,
            clock=self._clock,
            record_ms=self._around.record_ms,
        )
        self._detail = ""
        self._end = None
        self._tell()
        async with asyncio.TaskGroup() as group:
            collecting = group.create_task(self._collect())
            metering = group.create_task(self._keep_metering(self._meter))
            group.create_task(self._guard(self._meter))
            end = await self._end_of_run()
            if end is None:
                end = self._given_up()
                collecting.cancel()
            self._end = end
            self._changed.set()
            await metering
            if end.run_ms is not None:
                run_ms = self._until_failure(end.run_ms)
                end = replace(end, run_ms=run_ms)
                await self._meter.cut(run_ms)
                self._around.on_record()  # it is sent with the end, which follows
        return end

    async def _end_of_run(self) -> RunEnd | None:
        """None where it does not end though it is killed: a process can hang in the driver of a lost GPU."""
        waiting = asyncio.ensure_future(self._executor.wait(self.order))
        give_up_ms: int | None = None
        try:
            while not waiting.done():
                now_ms = self._clock.boot_ms()
                if give_up_ms is None and self._memory.stop_reason is EndReason.GPU_LOST:
                    give_up_ms = now_ms + self.order.stop_grace_ms + _UNDEAD_MS
                if give_up_ms is not None and now_ms >= give_up_ms:
                    return None
                await self._change_or(waiting, None if give_up_ms is None else give_up_ms - now_ms)
            return waiting.result()
        finally:
            waiting.cancel()

    def _given_up(self) -> RunEnd:
        detail = "what ran hangs in the GPU's driver and can't be ended"
        return RunEnd(reason=EndReason.GPU_LOST, detail=detail, run_ms=self._run_ms(), exit_code=None)

    async def _explained(self, end: RunEnd) -> RunEnd:
        """A command that fails by itself may have done so because its GPU failed under it."""
        failed = end.reason is EndReason.EXITED and end.exit_code not in {None, 0}
        if not failed or self._memory.stop_reason is not None or not self.order.gpu_uuids:
            return end
        why = await self._around.why_gpus_failed(self)
        return replace(end, reason=EndReason.GPU_LOST, detail=why) if why else end

    async def _collect(self) -> None:
        """Take in the output, as fast as the coordinator takes it from us."""
        async for chunks in self._executor.output(self.order, self.spool.offset):
            await self.spool.append(chunks)
            await self._executor.discard_output(self.order, self.spool.offset)
            self._around.on_evidence()
            await self.spool.has_room()
            if self.spool.is_abandoned:
                return

    async def _keep_metering(self, meter: Meter) -> None:
        while not self._is_metered_out():
            await self._sleep_ms(max(1, meter.due_in_ms()))
            if not self._is_metered_out() and meter.due_in_ms() == 0:
                run_ms = meter.run_ms() - MARGIN_MS
                if await self._executor.is_running(self.order):
                    await meter.cut(run_ms)
                    self._around.on_record()
                else:
                    await self._clock.sleep_ms(MARGIN_MS)

    async def _guard(self, meter: Meter) -> None:
        """Stop the run when that is asked for, or when it reaches what is paid for."""
        while not self._has_ended():
            if self._memory.stop_reason is not None:
                await self._executor.stop(self.order, self.order.stop_grace_ms)
                return
            left_ms = self._memory.paid_through_ms - meter.run_ms()
            if left_ms > 0:
                await self._sleep_ms(left_ms)
            elif await self._executor.is_running(self.order):
                await self.stop(EndReason.PAID_THROUGH)
            else:
                # It ended by itself, perhaps while we were away, and news of that is on the way.
                await self._sleep_ms(MARGIN_MS)

    def _has_ended(self) -> bool:
        return self._end is not None

    def _is_metered_out(self) -> bool:
        return self._has_ended() or self._memory.stop_reason is EndReason.GPU_LOST

    async def _sleep_ms(self, duration_ms: int) -> None:
        """Until the time is over or something about the attempt has changed."""
        await self._change_or(None, duration_ms)

    async def _change_or(self, other: asyncio.Future[RunEnd] | None, duration_ms: int | None) -> None:
        """Until something about the attempt has changed, the other is done, or the time is over."""
        changed = self._changed.next()
        timer = None if duration_ms is None else asyncio.ensure_future(self._clock.sleep_ms(duration_ms))
        try:
            awaited: set[asyncio.Future[Any]] = {each for each in (changed, timer, other) if each is not None}
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            if timer is not None:
                timer.cancel()

    async def _finish(self, end: RunEnd) -> None:
        stopped = self._memory.stop_reason
        ending = Ending(
            # Whoever did not see the end does not know that it was the one asked for.
            reason=end.reason if end.run_ms is None else stopped or end.reason,
            detail=_short("; ".join(filter(None, (self._memory.stop_detail, end.detail)))),
            # What is recorded was seen to run: an engine's clock that was set back does not undo it.
            run_ms=max(self.journal.end_ms, end.run_ms or 0),
            exit_code=end.exit_code,
            usage_number_last=self.journal.number_last,
            totals=self.spool.totals(),
        )
        await self._remember_end(ending)
        log.info(
            "%s attempt %s ended: %s, exit code %s, %d ms",
            self.order.request_id or "-",
            self.key,
            ending.reason,
            ending.exit_code,
            ending.run_ms,
        )
        self._tell()

    async def _remember(self, memory: Memory) -> None:
        self._memory = memory
        async with self._saving:
            # Whatever is newest by now: a later change may have come while we waited.
            await asyncio.to_thread(self._file.save, self._memory)

    async def _remember_end(self, ending: Ending) -> None:
        """An end is told only when it is on the disk: whoever has heard of it may settle it."""
        while True:
            memory = self._memory
            async with self._saving:
                await asyncio.to_thread(self._file.save, replace(memory, ending=ending))
            if self._memory is memory:  # else a reason to stop came meanwhile
                self._memory = replace(memory, ending=ending)
                return

    def _tell(self) -> None:
        self._changed.set()
        self._around.on_change()


def _short(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable.encode()[:DETAIL_BYTES_MAX].decode(errors="ignore")
