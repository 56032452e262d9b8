"""One writer, many readers.

Writes are functions of a transaction. One thread runs them, and all that queued up while it was busy with
the last commit share the next: a hundred callers cost little more than one. A function that raises takes
nobody with it: the others are run again without it, and then it alone, for what it said may have come from
what was rolled back. So a write must be a function of its transaction and its arguments alone, repeatable
until it has committed.
"""

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from coordinator.store.ports import Transaction
from coordinator.store.sql_accounts import SqlAccounts
from coordinator.store.sql_checks import SqlChecks
from coordinator.store.sql_hosts import SqlHosts
from coordinator.store.sql_jobs import SqlJobs
from coordinator.store.sql_money import SqlMoney
from coordinator.store.sql_usage import SqlUsage
from ledger.engine import reading

T = TypeVar("T")
SHARE_MAX = 256
# After so many failures in one share its rest is done one by one: leaving one out costs running the others.
FAILURES_SHARED_MAX = 8
READERS = 4


class ClosedError(RuntimeError):
    """Asked to write after the end."""


class SqlTransaction(SqlJobs, SqlUsage, SqlHosts, SqlAccounts, SqlMoney, SqlChecks):
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.topics: set[str] = set()

    def wake(self, *topics: str) -> None:
        self.topics.update(topics)


@dataclass(kw_only=True)
class _Write:
    function: Callable[[Transaction], Any]
    future: Future[Any] = field(default_factory=Future)


class Database:
    """`on_commit` is called on the writer's thread with the topics that were woken."""

    def __init__(self, engine: Engine, on_commit: Callable[[Iterable[str]], None]) -> None:
        self._engine = engine
        self._on_commit = on_commit
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._closed, self._closing = False, threading.Lock()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self._writer = threading.Thread(target=self._run, name="writer")
        self._writer.start()

    def write(self, function: Callable[[Transaction], T]) -> Future[T]:
        """Resolved after the commit: what it answers is durable."""
        write = _Write(function=function)
        with self._closing:
            if self._closed:
                raise ClosedError("the store is closed")
            self._writes.put(write)
        return write.future

    def read(self, function: Callable[[Transaction], T]) -> Future[T]:
        return self._readers.submit(self._read, function)

    def close(self) -> None:
        """What was queued is still committed."""
        with self._closing:
            self._closed = True
            self._writes.put(None)
        self._writer.join()
        self._readers.shutdown()
        self._engine.dispose()

    def _read(self, function: Callable[[Transaction], T]) -> T:
        with reading(self._engine) as connection:
            return function(SqlTransaction(connection))

    def _run(self) -> None:
        while True:
            share, more = self._next_share()
            self._serve(share)
            if not more:
                return

    def _next_share(self) -> tuple[list[_Write], bool]:
        share: list[_Write] = []
        item = self._writes.get()
        while item is not None:
            # A caller that has gone away before its turn is not served; after it, nothing calls it back.
            if item.future.set_running_or_notify_cancel():
                share.append(item)
            if len(share) == SHARE_MAX or self._writes.empty():
                return share, True
            item = self._writes.get()
        return share, False

    def _serve(self, share: list[_Write]) -> None:
        alone: list[_Write] = []
        while len(share) > 1 and len(alone) < FAILURES_SHARED_MAX:
            failed = self._commit_together(share)
            if failed is None:
                share = []
            else:
                alone.append(share.pop(failed))
        for write in (*share, *alone):
            self._commit_alone(write)

    def _commit_together(self, share: list[_Write]) -> int | None:
        """Which of them failed; None when all are committed."""
        answers: list[Any] = []
        topics: set[str] = set()
        try:
            with self._engine.begin() as connection:
                for write in share:
                    tx = SqlTransaction(connection)
                    answers.append(write.function(tx))
                    topics |= tx.topics
        except Exception:  # noqa: BLE001 - whatever it was, it is told to whom it happens when tried alone
            return min(len(answers), len(share) - 1)
        self._on_commit(topics)
        for write, answer in zip(share, answers, strict=True):
            write.future.set_result(answer)
        return None

    def _commit_alone(self, write: _Write) -> None:
        try:
            with self._engine.begin() as connection:
                tx = SqlTransaction(connection)
                answer = write.function(tx)
        except Exception as error:  # noqa: BLE001 - handed to the caller, who alone knows what to do
            write.future.set_exception(error)
            return
        self._on_commit(tx.topics)
        write.future.set_result(answer)
