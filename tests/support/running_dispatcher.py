"""A coordinator's writer and dispatcher on a database of their own, without its edges."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from coordinator.domain.account import Account, Role
from coordinator.domain.host import HostState
from coordinator.domain.job import Attempt
from coordinator.domain.metering import Stamp
from coordinator.domain.refusal import Refusal
from coordinator.domain.states import JobState
from coordinator.services.dispatch import Dispatcher
from coordinator.services.jobs import JobView
from coordinator.services.submit import Order, submits
from coordinator.store.database import Database
from coordinator.store.migrate import upgrade
from coordinator.store.ports import Transaction
from coordinator.store.transaction import SqlTransaction
from ledger.engine import make_engine
from runtime.ids import new_uuid
from tests.support.store_fixtures import BUYER, DIGEST, seed
from tests.support.values import WINDOW_MS, gpu, job, room, spec

WAIT_S = 10
FEE_PPM = 50_000
BUYER_ACCOUNT = Account(id=BUYER, name="buyer", roles=frozenset({Role.BUYER}))


class Running:
    """A coordinator's writer and dispatcher on a database, and a clock that the test moves."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now_ms = 1_000
        self.rings: list[set[str]] = []
        self.aside: list[str] = []
        self.database = Database(engine, lambda topics: self.rings.append(set(topics)))
        self.dispatcher = Dispatcher(self.now, FEE_PPM, WINDOW_MS, self.aside.append)

    def now(self) -> Stamp:
        return Stamp(boot_id="boot", boot_ms=self.now_ms, wall_ms=self.now_ms)

    def begin(self) -> "Running":
        self.database.keeper = self.dispatcher
        self.look()
        while not self.dispatcher.is_ready:
            self.look()
        return self

    def write(self, function: Callable[[Transaction], object]) -> None:
        self.database.write(function).result(WAIT_S)

    def look(self) -> None:
        self.database.write(self.dispatcher.look).result(WAIT_S)

    def order(self, **changes: object) -> Order:
        return Order(
            buyer=BUYER_ACCOUNT, request_id=str(new_uuid()), spec=spec(**changes), now_ms=self.now_ms
        )

    def submit(self, *orders: Order) -> list[JobView | Refusal]:
        """Together, in one transaction."""
        begun, go = threading.Event(), threading.Event()

        def wait(_: Transaction) -> None:
            begun.set()
            assert go.wait(WAIT_S)

        self.database.write(wait)
        assert begun.wait(WAIT_S)
        answers = [self.database.gather(submits, order) for order in orders]
        go.set()
        return [answer.result(WAIT_S) for answer in answers]

    def submit_one(self, **changes: object) -> str:
        (view,) = self.submit(self.order(**changes))
        assert isinstance(view, JobView)
        return view.job.id

    def state(self, job_id: str) -> str:
        found = self.database.read(lambda tx: tx.job(job_id)).result(WAIT_S)
        assert found is not None
        return str(found.state)

    def attempts(self) -> list[Attempt]:
        return list(self.database.read(lambda tx: tx.attempts_on_host("host_1")).result(WAIT_S))

    def connect(self, host_id: str, gpu_count: int, state: HostState = HostState.ONLINE) -> None:
        gpus = tuple(gpu(f"GPU-{host_id}-{n}") for n in range(gpu_count))
        plain = room(host_id, *gpus).host

        def come(tx: Transaction) -> None:
            found = tx.host(host_id)
            if found is None:
                tx.insert_host(host_id, DIGEST, self.now())
                found = tx.host(host_id)
                assert found is not None
            tx.save_hello(host_id, plain.facts, plain.terms)
            tx.save_link(host_id, found.link, state, "test", self.now_ms)

        self.write(come)


@pytest.fixture(name="running")
def running_dispatcher(tmp_path: Path) -> Iterator[Running]:
    engine = make_engine(f"sqlite:///{tmp_path / 'usance.db'}")
    upgrade(engine)
    with engine.begin() as connection:
        tx = SqlTransaction(connection)
        seed(tx)
        # The one that is seeded is in nobody's way.
        tx.save_job(job(), job(state=JobState.CANCELLED, ended_ms=1))
    made = Running(engine)
    yield made
    made.database.close()
