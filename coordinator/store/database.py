"""One writer, many readers.

Writes are functions of a transaction. One thread runs them, and all that queued up while it was busy with
the last commit share the next: a hundred callers cost little more than one. A function that raises takes
nobody with it: the others, and it, are run again one by one. So a write must be a function of its
transaction and its arguments alone, repeatable until it has committed.
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
READERS = 4


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
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self._writer = threading.Thread(target=self._run, name="writer")
        self._writer.start()

    def write(self, function: Callable[[Transaction], T]) -> Future[T]:
        """Resolved after the commit: what it answers is durable."""
        write = _Write(function=function)
        self._writes.put(write)
        return write.future

    def read(self, function: Callable[[Transaction], T]) -> Future[T]:
        return self._readers.submit(self._read, function)

    def close(self) -> None:
        """What was queued is still committed."""
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
            if share and not self._commit_together(share):
                for write in share:
                    self._commit_alone(write)
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

    def _commit_together(self, share: list[_Write]) -> bool:
        answers: list[Any] = []
        topics: set[str] = set()
        try:
            with self._engine.begin() as connection:
                for write in share:
                    tx = SqlTransaction(connection)
                    answers.append(write.function(tx))
                    topics |= tx.topics
        except Exception:  # noqa: BLE001 - whatever it was, each is now tried alone and told its own
            return False
        self._on_commit(topics)
        for write, answer in zip(share, answers, strict=True):
            write.future.set_result(answer)
        return True

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
