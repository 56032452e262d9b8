"""Group commit: what many callers ask at once shares one transaction and one commit.

While one commit is on its way to the disk, requests queue up; the next transaction takes them all. Eight
callers so get eight times the work for the waiting of one. There is one writer, a thread, because the
ledger has one head: more writers would only wait for each other.
"""

import asyncio
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    transfers: Sequence[Transfer]
    resolve: Callable[[list[Outcome] | Exception], None]


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
        self._queue: queue.Queue[_Request | None] = queue.Queue(QUEUE_REQUESTS_MAX)
        self._closed = False
        self._left: _Request | None = None
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, transfers: Sequence[Transfer]) -> "Future[list[Outcome]]":
        """Post from any thread; the future resolves after the commit."""
        future: Future[list[Outcome]] = Future()

        def resolve(answer: list[Outcome] | Exception) -> None:
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        # From here on a caller's cancel() changes nothing: the transfers are on their way.
        future.set_running_or_notify_cancel()
        self._enqueue(_Request(transfers=transfers, resolve=resolve))
        return future

    async def post(self, transfers: Sequence[Transfer]) -> list[Outcome]:
        """Post from asyncio. Cancelling the wait does not cancel the transfers."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Outcome]] = loop.create_future()

        def settle(answer: list[Outcome] | Exception) -> None:
            if future.done():
                return
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        def resolve(answer: list[Outcome] | Exception) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, answer)

        self._enqueue(_Request(transfers=transfers, resolve=resolve))
        return await future

    def close(self) -> None:
        """What was asked is still posted; nothing more is taken."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _enqueue(self, request: _Request) -> None:
        if self._closed:
            raise GroupClosedError("the ledger's writer is closed")
        try:
            self._queue.put_nowait(request)
        except queue.Full:
            raise GroupFullError(f"{QUEUE_REQUESTS_MAX} requests are waiting already") from None

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
                group[0].resolve(error)
                return
            # One request that the database will not have must not take the others with it.
            middle = len(group) // 2
            self._serve(group[:middle])
            self._serve(group[middle:])
            return
        at = 0
        for request in group:
            request.resolve(outcomes[at : at + len(request.transfers)])
            at += len(request.transfers)

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
