"""Stays with a job to its end: its output byte for byte, its events as progress, Ctrl-C as a question."""

import asyncio
import hashlib
import os
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from cli.client.calls import cancel_and_wait
from cli.errors import Broken
from cli.exits import Exit
from cli.model import Event, Job, LogEnd, LogPiece, LogStream
from cli.screens import BEFORE_RUN, before_run_lines, moment
from runtime.ids import new_uuid

if TYPE_CHECKING:
    from cli.client.market import Market

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_LINES_LOOK_BYTES, _LINES_BYTES_MAX = 2**14, 2**26
# A waiting person looks no oftener, and the market is asked no more.
QUEUE_FIRST_S, QUEUE_LOOK_S = 0.5, 5.0
INCOMPLETE = "the output may not be complete: its host did not deliver the rest"


@dataclass(frozen=True, kw_only=True)
class Left:
    """We went before the job did; it goes on."""

    exit: Exit


class Screen:
    """Where progress goes. `note` takes a sentence, `event` an event."""

    def __init__(self, note: Callable[[str], None], event: Callable[[Event], None]) -> None:
        self.note = note
        self.event = event


async def follow_job(market: "Market", job_id: str, screen: Screen) -> Job | Left:
    """Until the job has ended and its output is through, or until we are told to leave."""
    interrupts = Interrupts(market, job_id, screen)
    work = asyncio.create_task(_watch_to_end(market, job_id, screen))
    leave = asyncio.create_task(interrupts.wait_leave())
    try:
        await asyncio.wait({work, leave}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return Left(exit=Exit.INTERRUPTED)
        return await work
    except BrokenPipeError:
        return Left(exit=Exit.PIPE_CLOSED)
    finally:
        await cancel_and_wait(work, leave)
        interrupts.close()


async def _watch_to_end(market: "Market", job_id: str, screen: Screen) -> Job:
    copy = OutputCopy(market, job_id)
    output = asyncio.create_task(copy.run(follow=True))
    events = asyncio.create_task(_tell_events(market, job_id, screen))
    try:
        done, _ = await asyncio.wait({output, events}, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        if lacks_output(output.result()):
            screen.note(INCOMPLETE)
        return await market.get_job(job_id)
    finally:
        await cancel_and_wait(output, events)


def lacks_output(end: LogEnd) -> bool:
    """A job that never had an attempt wrote nothing, so nothing of it is missing."""
    return bool(end.attempt_id) and not end.complete


async def _tell_events(market: "Market", job_id: str, screen: Screen) -> None:
    waiting: asyncio.Task[None] | None = None
    try:
        async for event in market.watch_job(job_id):
            screen.event(event)
            if event.job_state in BEFORE_RUN:
                waiting = waiting or asyncio.create_task(_tell_waiting(market, job_id, screen))
            elif waiting is not None:
                await cancel_and_wait(waiting)
                waiting = None
    finally:
        if waiting is not None:
            await cancel_and_wait(waiting)


async def _tell_waiting(market: "Market", job_id: str, screen: Screen) -> None:
    """Before it runs: its place and what keeps it there, or how its host gets on, whenever that changes."""
    told: list[str] = []
    # Most jobs get their host at once, and nobody need ask.
    await asyncio.sleep(QUEUE_FIRST_S)
    while (job := await market.get_job(job_id)).state in BEFORE_RUN:
        lines = before_run_lines(job)
        if lines != told:
            for line in lines:
                screen.note(line)
            told = lines
        await asyncio.sleep(QUEUE_LOOK_S)


class OutputCopy:
    """Copies a job's two streams to ours, and knows what came of the attempt that wrote last."""

    def __init__(
        self, market: "Market", job_id: str, *, stderr_alone: bool = False, timestamps: bool = False
    ) -> None:
        """`stderr_alone`: stdout is left out, and stderr takes its place. `timestamps` adds to the bytes."""
        self._market = market
        self._job_id = job_id
        self._stderr_alone = stderr_alone
        self._stamps = {LogStream.STDOUT: LineStamps(), LogStream.STDERR: LineStamps()} if timestamps else {}
        self._attempt_id = ""
        self._stdout = hashlib.sha256()
        self._stderr = hashlib.sha256()

    async def run(self, *, follow: bool, tail_bytes: int = 0, since_ms: int = 0) -> LogEnd:
        """Raises Broken when all is said to be here but what came has another digest."""
        pieces = self._market.read_logs(self._job_id, follow=follow, tail_bytes=tail_bytes, since_ms=since_ms)
        async for item in pieces:
            match item:
                case LogPiece():
                    await self._take(item)
                case LogEnd():
                    if not tail_bytes and not since_ms:  # a part has no digest to hold it to
                        self._check(item)
                    return item
        raise AssertionError("a log ends with its end")

    async def _take(self, piece: LogPiece) -> None:
        if piece.attempt_id != self._attempt_id:
            self._attempt_id = piece.attempt_id
            self._stdout, self._stderr = hashlib.sha256(), hashlib.sha256()
        is_stderr = piece.stream is LogStream.STDERR
        (self._stderr if is_stderr else self._stdout).update(piece.data)
        if self._stderr_alone and not is_stderr:
            return
        stamps = self._stamps.get(piece.stream)
        data = stamps.before_lines(piece.data, piece.stored_at_ms) if stamps else piece.data
        await write_bytes(_STDERR if is_stderr and not self._stderr_alone else _STDOUT, data)

    def _check(self, end: LogEnd) -> None:
        if not end.complete or end.totals is None:
            return
        came = (self._stdout.digest(), self._stderr.digest())
        if came != (end.totals.stdout_sha256, end.totals.stderr_sha256):
            raise Broken("the output that came is not what the job wrote: the digests differ")


async def bytes_of_lines(market: "Market", job_id: str, lines: int) -> int:
    """How many bytes the last so many lines have now, both streams together."""
    size = _LINES_LOOK_BYTES
    while True:
        pieces = market.read_logs(job_id, follow=False, tail_bytes=size)
        found = b"".join([item.data async for item in pieces if isinstance(item, LogPiece)])
        begins = _begin_of_lines(found, lines)
        # Where it begins is known; or there is no more; or nobody reads so much.
        if begins or len(found) < size or size >= _LINES_BYTES_MAX:
            return len(found) - begins
        size *= 8


def _begin_of_lines(data: bytes, lines: int) -> int:
    """0 where there are not so many."""
    end = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(lines):
        end = data.rfind(b"\n", 0, end)
        if end < 0:
            return 0
    return end + 1


class LineStamps:
    """Puts before each line of a stream when its beginning came in."""

    def __init__(self) -> None:
        self._at_begin = True

    def before_lines(self, data: bytes, at_ms: int) -> bytes:
        stamp = f"{moment(at_ms)}  ".encode()
        *whole, rest = data.split(b"\n")
        lines = [line + b"\n" for line in whole] + ([rest] if rest else [])
        begun = [self._at_begin, *(True for _ in lines[1:])]
        if lines:
            self._at_begin = not rest
        return b"".join(stamp + line if begins else line for begins, line in zip(begun, lines, strict=False))


async def write_bytes(descriptor: int, data: bytes) -> None:
    """Write all, without holding up the loop when the reader is slow."""
    await asyncio.get_running_loop().run_in_executor(None, _write_all, descriptor, data)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


class _Answer(Enum):
    CANCEL = auto()
    DETACH = auto()


class Interrupts:
    """The first Ctrl-C asks whether to cancel or to detach, the second detaches.

    Without a terminal there is nobody to ask: the first detaches. Paid work is never stopped silently.
    """

    def __init__(self, market: "Market", job_id: str, screen: Screen) -> None:
        self._market = market
        self._job_id = job_id
        self._screen = screen
        self._loop = asyncio.get_running_loop()
        self._leave = asyncio.Event()
        self._interrupted = asyncio.Event()
        self._loop.add_signal_handler(signal.SIGINT, self._on_interrupt)
        self._loop.add_signal_handler(signal.SIGTERM, self._leave.set)

    def close(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)
        self._loop.remove_reader(_STDIN)

    async def wait_leave(self) -> None:
        """Return when we are to detach."""
        asking = asyncio.create_task(self._ask_when_interrupted())
        try:
            await self._leave.wait()
        finally:
            await cancel_and_wait(asking)

    def _on_interrupt(self) -> None:
        if self._interrupted.is_set() or not (sys.stdin.isatty() and sys.stderr.isatty()):
            self._leave.set()
        self._interrupted.set()

    async def _ask_when_interrupted(self) -> None:
        await self._interrupted.wait()
        sys.stderr.write("\nusance: the job goes on. c cancels it, d detaches, Ctrl-C detaches too [c/d] ")
        sys.stderr.flush()
        if await self._read_answer() is _Answer.DETACH:
            self._leave.set()
            return
        await self._market.cancel_job(self._job_id, str(new_uuid()))
        self._screen.note("asked to cancel; waiting for the end, Ctrl-C detaches")

    async def _read_answer(self) -> _Answer:
        while True:
            line = self._loop.create_future()
            self._loop.add_reader(_STDIN, self._on_readable, line)
            text = await line
            self._loop.remove_reader(_STDIN)
            match text.strip().lower():
                case "c" | "cancel":
                    return _Answer.CANCEL
                case "d" | "detach" if text:
                    return _Answer.DETACH
            if not text:
                return _Answer.DETACH
            sys.stderr.write("usance: c or d? ")
            sys.stderr.flush()

    def _on_readable(self, line: "asyncio.Future[str]") -> None:
        if not line.done():
            line.set_result(os.read(_STDIN, 1_024).decode(errors="replace"))
