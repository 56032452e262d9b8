"""The real coordinator on a simulated machine: its servicers, services, loops and store."""

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import grpc
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from coordinator import passes
from coordinator.api import gate
from coordinator.api.bell import Bell, Listener
from coordinator.api.edge import Edge, Rules
from coordinator.api.host import HostServicer, Issuer
from coordinator.api.market import MarketServicer
from coordinator.api.metrics import Metrics
from coordinator.api.uses import Uses
from coordinator.domain.account import Account, Bearer
from coordinator.domain.host import Certificate
from coordinator.domain.refusal import Refusal
from coordinator.services.mint import Mint
from coordinator.store.database import Database, _Write
from coordinator.store.kept import Kept
from coordinator.store.migrate import upgrade
from coordinator.store.ports import Rings, Transaction
from ledger.engine import make_engine
from tests.sim import sql
from tests.sim.clocks import SimClock
from tests.sim.faults import Dice, Story
from tests.sim.loop import Killed, Process, VirtualLoop
from tests.sim.network import Stream
from usance.v1 import host_pb2

T = TypeVar("T")
RULES = Rules(
    beat_interval_ms=3_000,
    reconnect_window_ms=30_000,
    fee_ppm=50_000,
    market_address="market",
    hosts_address="hosts",
)
STATEMENTS_A_COMMIT = 25


@cache
def _schema() -> bytes:
    """A database that was brought up to date once, to be copied for every seed."""
    engine = make_engine("sqlite://", durable=False)
    upgrade(engine)
    content: bytes = _raw(engine).serialize()
    engine.dispose()
    return content


def _raw(engine: Engine) -> Any:
    return engine.raw_connection().driver_connection


class Storage:
    """The database: it outlives every coordinator, and fails when it is told to.

    `is_whole`: it is spoken to through SQLAlchemy's own engine, as outside; which takes longer.
    """

    def __init__(self, story: Story, dice: Dice, *, is_whole: bool) -> None:
        self._whole = make_engine("sqlite://", durable=False)
        self.raw = _raw(self._whole)
        self.raw.deserialize(_schema())
        self._thin = None if is_whole else sql.Engine(self.raw, self._told)
        self.engine: Any = self._thin or self._whole
        self._story = story
        self.dice = dice
        self.fails = 0.0
        # Whose transactions these are, while there are any.
        self.writer: Process | None = None
        self._strike: tuple[int, str] | None = None
        event.listen(self._whole, "begin", lambda _: self._told("begin"))
        event.listen(self._whole, "before_cursor_execute", lambda *_: self._told("statement"))
        event.listen(self._whole, "commit", lambda _: self._told("commit"))

    @property
    def version(self) -> object:
        """Another one whenever anything may have changed."""
        return object() if self._thin is None else self._thin.version

    def close(self) -> None:
        self._whole.dispose()

    def disarm(self) -> None:
        self.writer, self._strike = None, None

    def _told(self, what: str) -> None:
        if what == "statement":
            self._statement()
        elif what == "begin":
            self._arm()
        else:
            self._commit()

    def _arm(self) -> None:
        """Perhaps this transaction dies, at any of its statements or at its commit."""
        self._strike = None
        if self.writer is not None and not self.writer.alive:
            raise OperationalError("simulated", None, Exception("the dead begin nothing"))
        if self.writer is not None and self.dice.chance(self.fails):
            kind = self.dice.rng.choice(["error", "error", "kill", "kill after"])
            self._strike = (self.dice.rng.randint(0, STATEMENTS_A_COMMIT), kind)

    def _statement(self) -> None:
        if self._strike is not None:
            left, kind = self._strike
            self._strike = (left - 1, kind)
            if left == 0 and kind != "kill after":
                self._die(kind, "at a statement")

    def _commit(self) -> None:
        if self._strike is not None and self._strike[1] != "kill after" and self._strike[0] % 2:
            self._die(self._strike[1], "at commit")

    def committed(self) -> None:
        if self._strike is not None and self._strike[1] == "kill after":
            self._die("kill", "after commit")
            raise Killed

    def _die(self, kind: str, place: str) -> None:
        self._strike = None
        if kind == "error":
            self._story.fault(f"transaction fails {place}")
        else:
            self._story.fault(f"coordinator dies {place}")
            assert self.writer is not None
            self.writer.kill()
        if place != "after commit":
            # Not `Killed`: what is no Exception would make SQLAlchemy throw the connection away.
            raise OperationalError("simulated", None, Exception("disk I/O error"))


class SimDatabase(Database):
    """The real one, its writer's thread turned by the loop."""

    def __init__(
        self,
        storage: Storage,
        on_commit: Callable[[Rings], None],
        process: Process,
        after: Callable[[], None],
    ) -> None:
        self._engine = storage.engine
        self._kept = Kept()
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._storage = storage
        self._process = process
        self._after = after
        self._turning = False

        def told(topics: Rings) -> None:
            storage.committed()
            on_commit(dict(sorted(topics.items())))

        self._on_commit = told

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """There is one connection, and it outlives us."""
        with self._engine.begin() as connection:
            yield connection

    def _enqueue(self, write: _Write) -> Future[Any]:
        self._writes.put(write)
        if not self._turning:
            self._turning = True
            self._process.loop.call_later(self._storage.dice.log_ms(1, 15), self._turn)
        return write.future

    def read(self, function: Callable[[Transaction], T]) -> Future[T]:
        future: Future[T] = Future()
        self._process.loop.call_later(self._storage.dice.log_ms(1, 15), self._look, function, future)
        return future

    def gather_read(
        self, together: Callable[[Transaction, Sequence[Any]], Sequence[T]], item: Any
    ) -> Future[T]:
        return self.read(lambda tx: together(tx, [item])[0])

    def _look(self, function: Callable[[Transaction], T], future: Future[T]) -> None:
        if future.set_running_or_notify_cancel():
            try:
                answer = self._read(function)
            except Exception as error:  # noqa: BLE001 - as a thread would hand it on
                future.set_exception(error)
            else:
                future.set_result(answer)

    def _turn(self) -> None:
        self._turning = False
        share, _ = self._next_share()
        self._storage.writer = self._process
        try:
            self._serve(share)
        except Killed:
            self._process.kill()
        finally:
            self._storage.disarm()
        self._after()


def _no_certificates(*_: object) -> tuple[bytes, Certificate]:
    raise AssertionError("simulated hosts have none")


class _SimBell(Bell):
    """Rings listeners in the order in which they came, in every run."""

    @contextmanager
    def hears(self, topic: str, listener: Listener) -> Iterator[None]:
        here: Any = self._listeners.setdefault(topic, _Ordered())  # type: ignore[arg-type]
        here[listener] = None
        try:
            yield
        finally:
            here.pop(listener, None)


class _Ordered(dict[Listener, None]):
    """A set that keeps its order."""


class SimCoordinator:
    """One machine that keeps the market; `start` after every death."""

    def __init__(
        self,
        loop: VirtualLoop,
        clock: SimClock,
        storage: Storage,
        story: Story,
        dice: Dice,
        after: Callable[[], None],
        says: Callable[[host_pb2.SynchronizeResponse], None],
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.storage = storage
        self.story = story
        self.dice = dice
        self._after = after
        self._says = says
        self._streams: list[Stream] = []
        self.restart_after_s: Callable[[], float] = lambda: self.dice.log_ms(300, 20_000)
        # Of each life.
        self.metrics: list[Metrics] = []
        self.process: Process
        self.hosts: HostServicer
        self.market: MarketServicer
        self.start()

    def start(self) -> None:
        self.process = process = Process("coordinator", self.loop)
        bell = _SimBell(self.loop)
        edge = Edge(
            store=SimDatabase(self.storage, bell.ring, process, self._after),
            clock=self.clock,
            bell=bell,
            mint=Mint(key=b"k" * 32),
            rules=RULES,
        )
        edge.store.keeper = dispatcher = passes.dispatcher_of(edge, lambda _: None)  # type: ignore[attr-defined]
        metrics = Metrics()
        self.metrics.append(metrics)
        self.hosts = HostServicer(edge, Issuer(edge=edge, sign=_no_certificates, authority_pem=b""))
        self.market = MarketServicer(edge)
        process.on_death.append(self._died)
        process.spawn(passes.schedule(edge, dispatcher), "schedule")
        process.spawn(passes.reap_lost(edge, lambda _: None), "reap")
        process.spawn(passes.keep_up(edge, metrics, Uses()), "upkeep")
        process.spawn(passes.sample(edge, metrics), "audit")
        self.story.tell("coordinator: starts")

    def _died(self) -> None:
        self.story.tell("coordinator: dies")
        for stream in self._streams:
            if self.dice.chance(0.7):
                stream.end(grpc.StatusCode.UNAVAILABLE, "the connection was reset")
            else:
                stream.up.close(None)  # the machine went with it: nobody tells the agents
        self._streams.clear()
        self.loop.world_later(self.restart_after_s(), self.start)

    def accept(self, host_id: str, stream: Stream) -> bool:
        """An agent has dialled in."""
        if not self.process.alive:
            return False
        self._streams.append(stream)
        task = self.process.spawn(self._serve(host_id, stream), f"serve {host_id}")

        def gone() -> None:
            task.cancel()

        stream.on_gone = gone
        return True

    async def _serve(self, host_id: str, stream: Stream) -> None:
        gate._HOST_ID.set(host_id)
        gate._CERTIFIED_MS.set(0)
        try:
            async for message in self.hosts.Synchronize(_requests(stream), None):  # type: ignore[arg-type]
                self._says(message)
                await stream.down.send(message.SerializeToString())
            stream.end(grpc.StatusCode.OK, "")
        except Refusal as refusal:
            self.story.seen[f"stream refused: {refusal.code}"] += 1
            stream.end(grpc.StatusCode.ABORTED, refusal.sentence)
        except Exception as error:  # noqa: BLE001 - the gate's task: told to the other end
            self.story.tell(f"a stream of {host_id} failed: {type(error).__name__}")
            self.story.seen[f"stream failed: {type(error).__name__}"] += 1
            stream.end(grpc.StatusCode.INTERNAL, "our own fault")
        finally:
            if stream in self._streams:
                self._streams.remove(stream)

    def ask(self, account: Account, method: str, request: Any) -> asyncio.Future[Any]:
        """A buyer's call reaches us; what becomes of the answer is the caller's affair."""
        answered = self.loop.create_future()
        # Whoever asked may have gone away.
        answered.add_done_callback(lambda done: done.cancelled() or done.exception())

        async def handle() -> None:
            gate._CALLER.set(Bearer(account=account, token_id="", expires_ms=0))
            try:
                found = getattr(self.market, method)(request, None)
                answer = [item async for item in found] if hasattr(found, "__aiter__") else await found
            except Exception as error:  # noqa: BLE001 - the gate's task: told to the caller
                if not answered.done():
                    answered.set_exception(error)
                return
            if not answered.done():
                answered.set_result(answer)

        if self.process.alive:
            self.process.spawn(handle(), method)
        return answered


async def _requests(stream: Stream) -> AsyncIterator[host_pb2.SynchronizeRequest]:
    while (raw := await stream.up.receive()) is not None:
        yield host_pb2.SynchronizeRequest.FromString(raw)
