"""One writer, many readers.

Writes are functions of a transaction. One thread runs them, and all that queued up while it was busy with
the last commit share the next: a hundred callers cost little more than one. A function that raises takes
nobody with it: the others are run again without it, and then it alone, for what it said may have come from
what was rolled back. So a write must be a function of its transaction and its arguments alone, repeatable
until it has committed.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.pool import QueuePool

from coordinator.store.kept import Kept
from coordinator.store.ports import News, Rings, Transaction, Writing
from coordinator.store.transaction import SqlTransaction
from coordinator.store.unit import HeldBackError, UnitTransaction
from ledger.engine import reading

_LOG = logging.getLogger(__name__)
A = TypeVar("A")
T = TypeVar("T")
# So many callers share a commit at most, and so much of what weighs: usage records, of some 0.1 ms each.
# Whatever comes next waits for it, beats too.
SHARE_MAX, SHARE_WEIGHT_MAX = 256, 4_096
# After so many failures in one share its rest is done one by one: leaving one out costs running the others.
FAILURES_SHARED_MAX = 8
READERS = 4
NOBODY_KNOWS_WHICH = -1


class ClosedError(RuntimeError):
    """Asked after the end."""


@dataclass(kw_only=True)
class _Write:
    """A function of a transaction; or an item for one that takes many."""

    function: Callable[[Transaction], Any] | None = None
    together: Callable[[Transaction, Sequence[Any]], Sequence[Any]] | None = None
    item: Any = None
    weight: int = 1
    future: Future[Any] = field(default_factory=Future)

    def run(self, tx: Transaction) -> Any:  # noqa: ANN401 - whatever the function answers
        if self.function is not None:
            return self.function(tx)
        assert self.together is not None, "it is one or the other"
        return self.together(tx, [self.item])[0]


class Keeper(Protocol):
    """Who has something to do at the end of every transaction, within it. All is called on the writer's
    thread."""

    def settle(self, tx: Writing) -> None: ...

    def committed(self) -> None:
        """The transaction of the last `settle` was."""
        ...

    def undone(self, tx: Writing) -> None:
        """It was rolled back because a write of somebody's raised; the others are run again."""
        ...

    def missed(self, tx: Writing) -> None:
        """This was committed without `settle`, because with it it could not be."""
        ...


class Watcher(Protocol):
    """Who counts what is done. Called on the writer's and the readers' threads."""

    def timed(self, kind: str) -> AbstractContextManager[object]:
        """Around a transaction: "write" or "read"."""
        ...

    def committed(self, news: News) -> None: ...


class Database:
    """`on_commit` is called on the writer's thread with whom it woke and what is known for them."""

    keeper: Keeper | None = None
    watcher: Watcher | None = None

    def __init__(self, engine: Engine, on_commit: Callable[[Rings], None]) -> None:
        self._engine = engine
        self._on_commit = on_commit
        self._kept = Kept()
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._closed, self._closing = False, threading.Lock()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        # By function: what waits to be read with it. A function that is not here is not being read with.
        self._waiting: dict[object, list[tuple[Any, Future[Any]]]] = {}
        self._gathering = threading.Lock()
        # The writer's own.
        self._connection: Connection | None = None
        self._writer = threading.Thread(target=self._run, name="writer")
        self._writer.start()

    def write(self, function: Callable[[Transaction], T]) -> Future[T]:
        """Resolved after the commit: what it answers is durable."""
        return self._enqueue(_Write(function=function))

    def gather(
        self, together: Callable[[Transaction, Sequence[A]], Sequence[T]], item: A, weight: int = 1
    ) -> Future[T]:
        """Like `write`, but all that waits for the same function is given to it at once.

        It answers for each item, in order. A function that raises is run again for fewer items. An item may
        weigh as much as several writes.
        """
        return self._enqueue(_Write(together=together, item=item, weight=weight))

    def _enqueue(self, write: _Write) -> Future[Any]:
        with self._closing:
            if self._closed:
                raise ClosedError("the store is closed")
            self._writes.put(write)
        return write.future

    def read(self, function: Callable[[Transaction], T]) -> Future[T]:
        with self._closing:
            if self._closed:
                raise ClosedError("the store is closed")
            return self._readers.submit(self._read, function)

    def gather_read(self, together: Callable[[Transaction, Sequence[A]], Sequence[T]], item: A) -> Future[T]:
        """Like `read`, but what comes while the function is at work is given to it together, next."""
        future: Future[T] = Future()
        with self._gathering:
            if together in self._waiting:
                self._waiting[together].append((item, future))
                return future
            self._waiting[together] = [(item, future)]
        self._readers.submit(self._read_on, together)
        return future

    def close(self) -> None:
        """What was queued is still committed."""
        with self._closing:
            self._closed = True
            self._writes.put(None)
        self._writer.join()
        self._readers.shutdown()
        self._engine.dispose()

    @property
    def writes_waiting(self) -> int:
        return self._writes.qsize()

    @property
    def connections(self) -> int:
        """In use now."""
        pool = self._engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0

    @property
    def kind(self) -> str:
        return self._engine.dialect.name

    def _timed(self, kind: str) -> AbstractContextManager[object]:
        return nullcontext() if self.watcher is None else self.watcher.timed(kind)

    def _read(self, function: Callable[[Transaction], T]) -> T:
        with self._timed("read"), reading(self._engine) as connection:
            return function(SqlTransaction(connection))

    def _read_on(self, together: Callable[[Transaction, Sequence[Any]], Sequence[Any]]) -> None:
        while True:
            with self._gathering:
                given = self._waiting[together]
                if not given:
                    del self._waiting[together]
                    return
                self._waiting[together] = []
            asked = [(item, future) for item, future in given if future.set_running_or_notify_cancel()]
            if asked:
                self._read_together(together, asked)

    def _read_together(
        self,
        together: Callable[[Transaction, Sequence[Any]], Sequence[Any]],
        asked: Sequence[tuple[Any, Future[Any]]],
    ) -> None:
        try:
            found = self._read(lambda tx: together(tx, [item for item, _ in asked]))
        except Exception as error:  # noqa: BLE001 - handed to whom it happens to
            if len(asked) == 1:
                asked[0][1].set_exception(error)
                return
            for one in asked:
                self._read_together(together, [one])
            return
        for (_, future), answer in zip(asked, found, strict=True):
            future.set_result(answer)

    def _run(self) -> None:
        while True:
            share, more = self._next_share()
            self._serve(share)
            if not more:
                self._let_go()
                return

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Always on the same connection. What SQLite has read of its file stays good only on the connection
        that wrote last; with another of the pool's each time, every commit would read all of it again."""
        if self._connection is None:
            self._connection = self._engine.connect()
        try:
            with self._connection.begin():
                yield self._connection
        except Exception:
            # It may be the connection that is broken. The pool, to which it goes back, knows it then.
            self._let_go()
            raise

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _next_share(self) -> tuple[list[_Write], bool]:
        share, weight = list[_Write](), 0
        item = self._writes.get()
        while item is not None:
            # A caller that has gone away before its turn is not served; after it, nothing calls it back.
            if item.future.set_running_or_notify_cancel():
                share.append(item)
                weight += item.weight
            if len(share) == SHARE_MAX or weight >= SHARE_WEIGHT_MAX or self._writes.empty():
                return share, True
            item = self._writes.get()
        return share, False

    def _serve(self, share: list[_Write]) -> None:
        alone: list[_Write] = []
        while len(share) > 1 and len(alone) < FAILURES_SHARED_MAX:
            failed = self._commit_together(share)
            if failed is None:
                share = []
            elif failed == NOBODY_KNOWS_WHICH:
                # Halves find it in a few rounds, however many there are.
                half = len(share) // 2
                self._serve(share[:half])
                share = share[half:]
            else:
                alone.append(share.pop(failed))
        for write in (*share, *alone):
            self._commit_alone(write)

    def _commit_together(self, share: list[_Write], *, settled: bool = True) -> int | None:
        """Which of them failed; None when all are committed."""
        answers: dict[int, Any] = {}
        parts = _parts(share)
        tx, done = None, 0
        try:
            with self._timed("write"), self._writing() as connection:
                tx = UnitTransaction(connection, self._kept)
                for part in parts:
                    answers |= _answers(tx, share, part)
                    done += 1
                self._finish(tx, settled=settled)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told to whom it happens when tried alone
            if tx is not None:
                tx.failed()
            if done < len(parts) and not isinstance(error, HeldBackError):
                if self.keeper is not None and tx is not None:
                    self.keeper.undone(tx)
                # Of those that were given to one function, halves find it out in a few rounds.
                return parts[done][0] if len(parts[done]) == 1 else NOBODY_KNOWS_WHICH
            if settled and self.keeper is not None:
                _LOG.exception("a transaction could not be settled; it is tried without that")
                return self._commit_together(share, settled=False)
            return NOBODY_KNOWS_WHICH
        self._tell(tx, settled=settled)
        for index, write in enumerate(share):
            write.future.set_result(answers[index])
        return None

    def _commit_alone(self, write: _Write, *, settled: bool = True) -> None:
        tx, is_done = None, False
        try:
            with self._timed("write"), self._writing() as connection:
                tx = UnitTransaction(connection, self._kept)
                answer = write.run(tx)
                is_done = True
                self._finish(tx, settled=settled)
        except Exception as error:  # noqa: BLE001 - handed to the caller, who alone knows what to do
            if tx is not None and tx.failed():
                self._commit_alone(write, settled=settled)
                return
            if is_done and settled and self.keeper is not None:
                _LOG.exception("a transaction could not be settled; it is tried without that")
                self._commit_alone(write, settled=False)
                return
            # What is wrong with what was held back is wrong with what the caller did.
            held_back = isinstance(error, HeldBackError) and error.__cause__
            write.future.set_exception(held_back or error)
            return
        self._tell(tx, settled=settled)
        write.future.set_result(answer)

    def _finish(self, tx: UnitTransaction, *, settled: bool) -> None:
        if settled and self.keeper is not None:
            self.keeper.settle(tx)
        tx.flush()

    def _tell(self, tx: UnitTransaction, *, settled: bool) -> None:
        tx.committed()
        if self.keeper is not None:
            if settled:
                self.keeper.committed()
            else:
                self.keeper.missed(tx)
        self._on_commit(tx.rings())
        if self.watcher is not None:
            self.watcher.committed(tx.news())


def _parts(share: Sequence[_Write]) -> list[list[int]]:
    """Places in the share: what goes together, where its first one stands; everything else by itself."""
    parts: list[list[int]] = []
    known: dict[object, list[int]] = {}
    for index, write in enumerate(share):
        if write.together is not None and write.together in known:
            known[write.together].append(index)
            continue
        parts.append([index])
        if write.together is not None:
            known[write.together] = parts[-1]
    return parts


def _answers(tx: Transaction, share: Sequence[_Write], part: Sequence[int]) -> dict[int, Any]:
    first = share[part[0]]
    if first.together is None:
        return {part[0]: first.run(tx)}
    found = first.together(tx, [share[index].item for index in part])
    return dict(zip(part, found, strict=True))
