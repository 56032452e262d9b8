"""Group commit: what many callers ask at once shares one transaction and one commit.

While one commit is on its way to the disk, requests queue up; the next transaction takes them all. Eight
callers so get eight times the work for the waiting of one. There is one writer, a thread, because the
ledger has one head: more writers would only wait for each other.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from ledger.book import post
from ledger.entries import Outcome, Transfer

# Larger groups gain little and make everyone in them wait for the last.
GROUP_TRANSFERS_MAX = 1_000
# What waits beyond this is refused at once: a caller must be told, not kept in memory.
QUEUE_REQUESTS_MAX = 10_000
_ATTEMPTS_MAX = 3


class GroupFullError(RuntimeError):
    """More is waiting than will be served soon; try again later."""


class GroupClosedError(RuntimeError):
    """The writer has been closed."""


Answer = list[Outcome] | Exception


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """`loop` is where the future lives; None for one of a thread."""

    transfers: Sequence[Transfer]
    future: "Future[list[Outcome]] | asyncio.Future[list[Outcome]]"
    loop: asyncio.AbstractEventLoop | None


class GroupCommit:
    """One writer for threads (`submit`) and asyncio callers (`post`) alike.

    An answer means that it is durable. Where the outcome of a commit is not known, the same group is sent
    again: the ids make that safe, and those it had reached answer `exists`.
    """

    def __init__(self, engine: Engine, wall_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._wall_ms = wall_ms
        # The hot path speaks to the driver, whose errors come as they are.
        self._dbapi: Any = engine.dialect.dbapi
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closed = False
        self._door = threading.Lock()
        self._left: _Request | None = None
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, transfers: Sequence[Transfer]) -> "Future[list[Outcome]]":
        """Post from any thread; the future resolves after the commit."""
        future: Future[list[Outcome]] = Future()
        # From here on a caller's cancel() changes nothing: the transfers are on their way.
        future.set_running_or_notify_cancel()
        self._enqueue(_Request(transfers=transfers, future=future, loop=None))
        return future

    async def post(self, transfers: Sequence[Transfer]) -> list[Outcome]:
        """Post from asyncio. Cancelling the wait does not cancel the transfers."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Outcome]] = loop.create_future()
        self._enqueue(_Request(transfers=transfers, future=future, loop=loop))
        return await future

    def close(self) -> None:
        """What was asked is still posted; nothing more is taken."""
        with self._door:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _enqueue(self, request: _Request) -> None:
        # Nothing may slip in behind the mark that ends the queue.
        with self._door:
            if self._closed:
                raise GroupClosedError("the ledger's writer is closed")
            if self._queue.qsize() >= QUEUE_REQUESTS_MAX:
                raise GroupFullError(f"{QUEUE_REQUESTS_MAX} requests are waiting already")
            self._queue.put(request)

    def _run(self) -> None:
        while True:
            group, more = self._next_group()
            if group:
                self._serve(group)
            if not more:
                return

    def _next_group(self) -> tuple[list[_Request], bool]:
        group: list[_Request] = []
        size = 0
        waiting = self._left or self._queue.get()
        self._left = None
        while waiting is not None:
            size += len(waiting.transfers)
            if group and size > GROUP_TRANSFERS_MAX:
                self._left = waiting
                return group, True
            group.append(waiting)
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _serve(self, group: list[_Request]) -> None:
        try:
            outcomes = self._commit([transfer for request in group for transfer in request.transfers])
        except Exception as error:  # noqa: BLE001 - the top of a loop: whoever asked is told
            if len(group) == 1:
                _resolve([(group[0], error)])
                return
            # One request that the database will not have must not take the others with it.
            middle = len(group) // 2
            self._serve(group[:middle])
            self._serve(group[middle:])
            return
        at = 0
        answers: list[tuple[_Request, Answer]] = []
        for request in group:
            answers.append((request, outcomes[at : at + len(request.transfers)]))
            at += len(request.transfers)
        _resolve(answers)

    def _commit(self, transfers: Sequence[Transfer]) -> list[Outcome]:
        attempt = 1
        while True:
            try:
                with self._engine.begin() as conn:
                    return post(conn, transfers, self._wall_ms())
            except (IntegrityError, self._dbapi.IntegrityError, self._dbapi.DataError):
                raise
            except (DBAPIError, self._dbapi.Error):
                if attempt == _ATTEMPTS_MAX:
                    raise
            attempt += 1


def _resolve(answers: list[tuple[_Request, Answer]]) -> None:
    """Each event loop is woken once for all of its callers: a wake is a system call."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[_Request, Answer]]] = {}
    for request, answer in answers:
        if request.loop is None:
            _settle([(request, answer)])
        else:
            loops.setdefault(request.loop, []).append((request, answer))
    for loop, mine in loops.items():
        # A loop that was closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, mine)


def _settle(answers: list[tuple[_Request, Answer]]) -> None:
    for request, answer in answers:
        if request.future.done():
            continue
        if isinstance(answer, Exception):
            request.future.set_exception(answer)
        else:
            request.future.set_result(answer)
