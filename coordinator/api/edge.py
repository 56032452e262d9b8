"""What every servicer needs of the program it is part of."""

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from coordinator.api import acting
from coordinator.api.bell import Bell
from coordinator.api.figures import Figures
from coordinator.api.inbox import Inbox
from coordinator.domain.index import Index
from coordinator.domain.metering import Stamp
from coordinator.services.mint import Mint
from coordinator.services.vault import Vault, fresh
from coordinator.store.ports import Transaction
from runtime.clock import Clock

A = TypeVar("A")
T = TypeVar("T")


class Store(Protocol):
    """Runs functions of a transaction: writes one after the other, reads beside them."""

    def write(self, function: Callable[[Transaction], T]) -> Future[T]: ...

    def gather(
        self, together: Callable[[Transaction, Sequence[A]], Sequence[T]], item: A, weight: int = 1
    ) -> Future[T]: ...

    def read(self, function: Callable[[Transaction], T]) -> Future[T]: ...

    def gather_read(
        self, together: Callable[[Transaction, Sequence[A]], Sequence[T]], item: A
    ) -> Future[T]: ...


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the operator has set."""

    beat_interval_ms: int
    reconnect_window_ms: int
    fee_ppm: int
    # As buyers and agents can reach them, host:port.
    market_address: str
    hosts_address: str
    # Of the output of one attempt so much is kept.
    job_output_bytes_max: int = 1 << 40


@dataclass(kw_only=True)
class Sight:
    """The market as it is kept in memory, on the writer's thread; None while it is not whole."""

    index: Callable[[], Index | None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Edge:
    store: Store
    clock: Clock
    bell: Bell
    mint: Mint
    rules: Rules
    # When each host was last heard, since our start, if that was not written down: most beats say no more
    # than that their host is there.
    heard: dict[str, Stamp] = field(default_factory=dict)
    figures: Figures = field(default_factory=Figures)
    sight: Sight = field(default_factory=Sight)
    inbox: Inbox = field(default_factory=Inbox)
    vault: Vault = field(default_factory=fresh)

    def write(self, function: Callable[[Transaction], T]) -> Awaitable[T]:
        act = acting.keep()
        if act is None:
            return self.inbox.awaited(self.store.write(function))

        def with_act(tx: Transaction) -> T:
            answer = function(tx)
            tx.append_acts([act])
            return answer

        return self.inbox.awaited(self.store.write(with_act))

    def gather(
        self, together: Callable[[Transaction, Sequence[A]], Sequence[T]], item: A, weight: int = 1
    ) -> Awaitable[T]:
        return self.inbox.awaited(self.store.gather(together, item, weight))

    def read(self, function: Callable[[Transaction], T]) -> Awaitable[T]:
        return self.inbox.awaited(self.store.read(function))

    def look(self, function: Callable[[Index], T]) -> Awaitable[T]:
        """At all hosts as they are now. To read them from the database would cost a hundred times as much."""
        now_ms = self.clock.wall_ms()

        def run(tx: Transaction) -> T:
            index = self.sight.index()
            if index is None:
                index = Index(tx.rooms())
            index.now_ms = now_ms
            return function(index)

        return self.write(run)

    def gather_read(
        self, together: Callable[[Transaction, Sequence[A]], Sequence[T]], item: A
    ) -> Awaitable[T]:
        return self.inbox.awaited(self.store.gather_read(together, item))

    def now(self) -> Stamp:
        return Stamp(boot_id=self.clock.boot_id, boot_ms=self.clock.boot_ms(), wall_ms=self.clock.wall_ms())
