"""Holds all attempts of this host and brings them towards what the coordinator wants."""

import asyncio
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, assert_never

from agent import memory as remembered
from agent.domain import reducer
from agent.domain.attempt import (
    Acknowledgement,
    AttemptKey,
    AttemptReport,
    AttemptState,
    DesiredAttempt,
    EndReason,
    OutputChunk,
)
from agent.domain.confidential import Confidential
from agent.domain.gpu import GpuSample
from agent.domain.reducer import Abandon, Acknowledge, Extend, Forget, Start, Stop, TakeBack
from agent.domain.use import JobFigures, Stock
from agent.executor.ports import Executor, StartError
from agent.gpu.watch import GpuWatch, UnfitError
from agent.memory import Memory, MemoryFile
from agent.pipeline import Attempt, Surroundings
from runtime.clock import Clock
from runtime.evidence import UsageRecord
from runtime.tracing import OFF, Tracer

log = logging.getLogger(__name__)

_AGAIN_MS = 5_000
# For records that were cut at the same moment to be on the disk: what is due together is sent together.
_RECORDS_WAIT_S = 0.05


class Listener(Protocol):
    """Who wants to hear of news."""

    def changed(self) -> None:
        """An attempt's state has changed."""
        ...

    def progressed(self) -> None:
        """What an attempt does or awaits is another; it need not be told at once."""
        ...

    def evidence(self) -> None:
        """There is usage or output to send."""
        ...


class Runner:
    """The attempts of this host, their tasks and their folders."""

    def __init__(
        self,
        *,
        folder: Path,
        executor: Executor,
        clock: Clock,
        gpus: GpuWatch,
        record_ms: int,
        output_waiting_bytes_max: int,
        traces: Tracer = OFF,
    ) -> None:
        self._folder = folder
        self._traces = traces
        self._executor = executor
        self._clock = clock
        self._gpus = gpus
        self._attempts: dict[AttemptKey, Attempt] = {}
        self._tasks: dict[AttemptKey, asyncio.Task[None]] = {}
        self._forgetting: dict[AttemptKey, asyncio.Task[None]] = {}
        self._desired: Sequence[DesiredAttempt] | None = None
        self._reconciling = asyncio.Lock()
        self._dirty = asyncio.Event()
        self._gpus_changed = asyncio.Condition()
        self._told = asyncio.Condition()
        self._listeners: list[Listener] = []
        self._records_wait = False
        self._figures: Mapping[AttemptKey, JobFigures] = {}
        self._around = Surroundings(
            executor=executor,
            clock=clock,
            record_ms=record_ms,
            output_waiting_bytes_max=output_waiting_bytes_max,
            gpus_ready=self._gpus_ready,
            confidential=self._confidential_of,
            why_gpus_failed=lambda attempt: gpus.why_failed(attempt.order.gpu_uuids),
            on_change=self._changed,
            on_progress=self._progressed,
            on_evidence=self._evidence,
            on_record=self._recorded,
        )

    def tell(self, listener: Listener) -> None:
        """Have it hear of news from now on."""
        self._listeners.append(listener)

    async def restore(self) -> None:
        """Take up what an agent before us held, and destroy what nobody holds."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in sorted(self._folder.iterdir()):
            memory = _remembered(folder)
            if memory is None:
                await asyncio.to_thread(shutil.rmtree, folder)
            else:
                self._hold(MemoryFile(folder), memory)
        for key in await self._executor.held() - self._attempts.keys():
            log.warning("destroying the rest of %s, of which this agent knows nothing", key)
            await self._executor.destroy(key)

    async def close(self) -> None:
        """Leave everything running and let go of it."""
        tasks = [*self._tasks.values(), *self._forgetting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for attempt in self._attempts.values():
            await attempt.close()
        await self._executor.close()

    async def keep_reconciling(self) -> None:
        """Act again whenever an attempt has changed."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self._reconcile()
            async with self._gpus_changed:
                self._gpus_changed.notify_all()

    async def apply(self, desired: Sequence[DesiredAttempt], *, is_first: bool = False) -> None:
        """The coordinator's newest word on everything that should be here; is it the first on a stream?"""
        self._desired = desired
        async with self._told:
            self._told.notify_all()
        await self._reconcile(is_first=is_first)

    async def acknowledge(self, acknowledged: Acknowledgement) -> None:
        attempt = self._attempts.get(acknowledged.key)
        if attempt is not None:
            await attempt.acknowledge(acknowledged.usage_number, acknowledged.log_offset)

    def reports(self) -> tuple[AttemptReport, ...]:
        """Everything that is here."""
        held = (a.report() for key, a in self._attempts.items() if key not in self._forgetting)
        return tuple(self._with_figures(report) for report in held)

    def _with_figures(self, report: AttemptReport) -> AttemptReport:
        runs = report.state in (AttemptState.RUNNING, AttemptState.STOPPING)
        return replace(report, figures=self._figures.get(report.key)) if runs else report

    def keys(self) -> tuple[AttemptKey, ...]:
        return tuple(key for key in self._attempts if key not in self._forgetting)

    def usage_after(self, key: AttemptKey, number: int, count_max: int) -> tuple[UsageRecord, ...]:
        attempt = self._attempts.get(key)
        return attempt.journal.after(number, count_max) if attempt else ()

    def output_from(self, key: AttemptKey, offset: int, bytes_max: int) -> tuple[OutputChunk, ...]:
        attempt = self._attempts.get(key)
        return attempt.spool.read(offset, bytes_max) if attempt else ()

    def acknowledged(self, key: AttemptKey) -> tuple[int, int]:
        """The usage number and output offset that the coordinator is known to have stored."""
        attempt = self._attempts.get(key)
        return (attempt.journal.number_acknowledged, attempt.spool.offset_acknowledged) if attempt else (0, 0)

    def gpus_in_use(self) -> dict[str, str]:
        """The GPUs that attempts have now, and the attempt that has each."""
        having = (a for a in self._attempts.values() if a.has_gpus)
        return {uuid: a.key.attempt_id for a in having for uuid in a.order.gpu_uuids}

    def stock(self) -> Stock:
        attempts = list(self._attempts.values())
        running = [a.report().run_ms - a.journal.end_ms for a in attempts if a.state is AttemptState.RUNNING]
        return Stock(
            attempts=Counter(a.state for a in attempts),
            journal_bytes=sum(a.journal.size_bytes for a in attempts),
            spool_bytes=sum(a.spool.size_bytes for a in attempts),
            records_waiting=sum(a.journal.waiting for a in attempts),
            output_bytes_waiting=sum(a.spool.waiting_bytes for a in attempts),
            meter_lag_ms=max(running, default=0),
        )

    def add_samples(self, samples: Sequence[GpuSample]) -> None:
        for attempt in self._attempts.values():
            attempt.add_samples(samples)

    def show(self, figures: Mapping[AttemptKey, JobFigures]) -> None:
        """How attempts go, to be reported until it is known anew."""
        self._figures = figures

    async def gpus_failed(self, reasons: Mapping[str, str]) -> None:
        for attempt in list(self._attempts.values()):
            why = next((reasons[uuid] for uuid in attempt.order.gpu_uuids if uuid in reasons), "")
            if why and attempt.has_gpus:
                await attempt.fail(why)

    def _changed(self) -> None:
        self._dirty.set()
        for listener in self._listeners:
            listener.changed()

    def _progressed(self) -> None:
        for listener in self._listeners:
            listener.progressed()

    def _evidence(self) -> None:
        for listener in self._listeners:
            listener.evidence()

    def _recorded(self) -> None:
        if not self._records_wait:
            self._records_wait = True
            asyncio.get_running_loop().call_later(_RECORDS_WAIT_S, self._tell_records)

    def _tell_records(self) -> None:
        self._records_wait = False
        self._evidence()

    async def _reconcile(self, *, is_first: bool = False) -> None:
        async with self._reconciling:
            if self._desired is None:
                return
            held = [a.held() for key, a in self._attempts.items() if key not in self._forgetting]
            starts: list[Start] = []
            for action in reducer.reduce(held, self._desired, is_first=is_first):
                if isinstance(action, Start):
                    starts.append(action)
                else:
                    await self._carry_out(action)
            await self._start(starts)

    async def _carry_out(self, action: Stop | Abandon | Extend | Acknowledge | TakeBack | Forget) -> None:
        match action:
            case Stop():
                await self._attempts[action.key].stop(action.reason)
            case Abandon():
                await self._attempts[action.key].abandon()
            case Extend():
                await self._attempts[action.key].extend(action.paid_through_ms)
            case Acknowledge():
                attempt = self._attempts[action.key]
                await attempt.acknowledge(action.usage_number, action.log_offset)
            case TakeBack():
                log.warning(
                    "the coordinator has only record %d and output up to %d of %s: the rest is sent again",
                    action.usage_number,
                    action.log_offset,
                    action.key,
                )
                await self._attempts[action.key].take_back(action.usage_number, action.log_offset)
            case Forget():
                self._forgetting[action.key] = asyncio.create_task(self._forget(action.key))
            case _:
                assert_never(action)

    async def _start(self, actions: Sequence[Start]) -> None:
        """Hold new attempts: noted side by side, as a disk flushes many at once, but begun in order."""
        # What is being forgotten can't begin; when that is done we are asked again.
        starts = [action for action in actions if action.order.key not in self._attempts]
        notes = [asyncio.to_thread(_note, self._folder, action) for action in starts]
        failed: BaseException | None = None
        for action, file in zip(starts, await asyncio.gather(*notes, return_exceptions=True), strict=True):
            if isinstance(file, BaseException):
                failed = file
            else:
                log.info("%s attempt %s begins", action.order.request_id or "-", action.order.key)
                self._hold(file, _first_memory(action))
                self._progressed()
        if failed is not None:
            raise failed

    def _hold(self, file: MemoryFile, memory: Memory) -> None:
        attempt = Attempt(file, memory, self._around)
        self._attempts[attempt.key] = attempt
        self._tasks[attempt.key] = asyncio.create_task(self._live(attempt), name=f"attempt {attempt.key}")

    async def _live(self, attempt: Attempt) -> None:
        """The attempt's steps can be entered again, so a fault of ours or of the disk is not its end."""
        told = {"attempt_id": attempt.key.attempt_id, "request_id": attempt.order.request_id}
        with self._traces.span("attempt", told, place=attempt.order.traceparent):
            await self._live_on(attempt)

    async def _live_on(self, attempt: Attempt) -> None:
        while True:
            try:
                await attempt.run()
            except Exception:
                log.exception("attempt %s got into trouble; taking it up again", attempt.key)
                attempt.progress("the host has trouble with it and tries again")
                await self._clock.sleep_ms(_AGAIN_MS)
            else:
                return

    async def _forget(self, key: AttemptKey) -> None:
        attempt = self._attempts[key]
        while True:
            try:
                await self._tasks[key]
                await self._executor.destroy(key)
                await asyncio.to_thread(shutil.rmtree, attempt.folder)
            except Exception:
                log.exception("what is left of %s can't be removed yet", key)
                await self._clock.sleep_ms(_AGAIN_MS)
            else:
                break
        await attempt.close()
        del self._attempts[key], self._tasks[key], self._forgetting[key]
        log.info("attempt %s is forgotten", key)
        self._changed()

    async def _gpus_ready(self, attempt: Attempt) -> None:
        async with self._gpus_changed:
            while self._in_the_way(attempt):
                attempt.progress("waiting for another attempt to leave the GPUs")
                await self._gpus_changed.wait()
        try:
            await self._gpus.make_ready(attempt.order.gpu_uuids, attempt.progress)
        except UnfitError as error:
            raise StartError(EndReason.START_FAILED, str(error)) from error

    async def _confidential_of(self, attempt: Attempt) -> Confidential:
        async with self._told:
            while True:
                for want in self._desired or ():
                    if want.order.key == attempt.key and want.confidential is not None:
                        return want.confidential
                attempt.progress("waiting for its secrets")
                await self._told.wait()

    def _in_the_way(self, attempt: Attempt) -> bool:
        """Does an attempt that came before still have one of the same GPUs?"""
        for key, other in self._attempts.items():
            if key == attempt.key:
                return False
            shared = set(other.order.gpu_uuids) & set(attempt.order.gpu_uuids)
            if shared and other.state is not AttemptState.ENDED:
                return True
        return False


def _note(parent: Path, action: Start) -> MemoryFile:
    folder = parent / str(action.order.key)
    file = MemoryFile(folder)
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        file.save(_first_memory(action))
    except OSError:
        # The disk is full, say. Nobody holds the attempt, so nobody would remove what there is of it.
        file.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return file


def _first_memory(action: Start) -> Memory:
    return Memory(order=action.order, paid_through_ms=action.paid_through_ms)


def _remembered(folder: Path) -> Memory | None:
    """None where nothing was written yet, or what was written is damaged: then it is lost, and said to be."""
    try:
        return remembered.load(folder)
    except (ValueError, KeyError, TypeError):
        log.exception("%s can't be read; its attempt is given up", folder)
        return None
