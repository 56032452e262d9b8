"""One writer that shares its commits: what it answers is durable, and nobody pays for another's failure."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from coordinator.store.database import FAILURES_SHARED_MAX, SHARE_MAX, ClosedError, Database
from coordinator.store.migrate import upgrade
from coordinator.store.ports import Transaction
from ledger.engine import make_engine
from runtime.ids import new_id
from tests.support.store_fixtures import BUYER

WAIT_S = 10


class Opened:
    """A database with a gate: while it is shut the writer waits, and what is asked queues up behind."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.rings: list[set[str]] = []
        self.database = Database(engine, lambda topics: self.rings.append(set(topics)))
        self._open = threading.Event()

    def shut(self) -> "Future[None]":
        at_gate = threading.Event()

        def waits(tx: Transaction) -> None:
            at_gate.set()
            assert self._open.wait(WAIT_S)

        waiting = self.database.write(waits)
        assert at_gate.wait(WAIT_S)
        return waiting

    def open(self) -> None:
        self._open.set()

    def remembered(self, request_id: str) -> bool:
        return self.database.read(lambda tx: tx.recall(BUYER, request_id)).result(WAIT_S) is not None

    def commits(self) -> int:
        """How many commits rang."""
        return len(self.rings)


@pytest.fixture
def opened(market_engine: Engine) -> Iterator[Opened]:
    made = Opened(market_engine)
    yield made
    made.open()
    made.database.close()


def remembers(request_id: str) -> Callable[[Transaction], str]:
    def write(tx: Transaction) -> str:
        tx.remember(BUYER, request_id, bytes(32), "answer")
        tx.wake(request_id)
        return request_id

    return write


def fails(message: str) -> Callable[[Transaction], str]:
    def write(tx: Transaction) -> str:
        tx.remember(BUYER, new_id("r"), bytes(32), "answer")
        raise ValueError(message)

    return write


def test_what_is_answered_can_be_read(opened: Opened) -> None:
    name = new_id("r")
    assert opened.database.write(remembers(name)).result(WAIT_S) == name
    assert opened.remembered(name)
    assert {name} in opened.rings


def test_what_queued_up_shares_one_commit(opened: Opened) -> None:
    opened.shut()
    names = [new_id("r") for _ in range(SHARE_MAX)]
    futures = [opened.database.write(remembers(name)) for name in names]
    opened.open()
    assert [future.result(WAIT_S) for future in futures] == names
    assert opened.commits() == 2, "the one at the gate, and all the others"
    assert opened.rings[-1] == set(names)


@pytest.mark.parametrize("failures", [1, 3, FAILURES_SHARED_MAX + 4])
def test_who_fails_takes_nobody_along(opened: Opened, failures: int) -> None:
    opened.shut()
    good = [new_id("r") for _ in range(20)]
    asked = [(name, opened.database.write(remembers(name))) for name in good[:10]]
    bad = [opened.database.write(fails(str(n))) for n in range(failures)]
    asked += [(name, opened.database.write(remembers(name))) for name in good[10:]]
    opened.open()
    for name, future in asked:
        assert future.result(WAIT_S) == name
        assert opened.remembered(name)
    for number, future in enumerate(bad):
        with pytest.raises(ValueError, match=f"^{number}$"):
            future.result(WAIT_S)


def test_a_few_failures_leave_the_rest_together(opened: Opened) -> None:
    """Every refusal used to split a whole share into single commits."""
    opened.shut()
    futures = [opened.database.write(remembers(new_id("r"))) for _ in range(30)]
    with_failure = opened.database.write(fails("no"))
    opened.open()
    for future in futures:
        future.result(WAIT_S)
    assert isinstance(with_failure.exception(WAIT_S), ValueError)
    assert opened.commits() == 2


def test_what_the_database_refuses_fails_alone_too(opened: Opened) -> None:
    name = new_id("r")
    opened.shut()
    first = opened.database.write(remembers(name))
    twice = opened.database.write(remembers(name))
    other = opened.database.write(remembers(new_id("r")))
    opened.open()
    assert first.result(WAIT_S) == name
    assert twice.exception(WAIT_S) is not None
    other.result(WAIT_S)


def test_what_comes_after_sees_what_came_before(opened: Opened) -> None:
    opened.shut()
    name = new_id("r")
    opened.database.write(remembers(name))
    seen = opened.database.write(lambda tx: tx.recall(BUYER, name))
    opened.open()
    assert seen.result(WAIT_S) is not None


def test_who_went_away_before_his_turn_is_not_served(opened: Opened) -> None:
    opened.shut()
    gone, stays = new_id("r"), new_id("r")
    cancelled = opened.database.write(remembers(gone))
    served = opened.database.write(remembers(stays))
    assert cancelled.cancel()
    opened.open()
    assert served.result(WAIT_S) == stays
    with pytest.raises(CancelledError):
        cancelled.result(WAIT_S)
    assert not opened.remembered(gone)


def test_closing_commits_what_was_queued_and_takes_nothing_more(market_engine: Engine) -> None:
    opened = Opened(market_engine)
    opened.shut()
    names = [new_id("r") for _ in range(SHARE_MAX + 5)]
    futures = [opened.database.write(remembers(name)) for name in names]
    closing = threading.Thread(target=opened.database.close)
    closing.start()
    opened.open()
    closing.join(WAIT_S)
    assert not closing.is_alive()
    assert [future.result(0) for future in futures] == names
    with market_engine.connect() as connection:
        found = connection.execute(text("SELECT request_id FROM request")).scalars().all()
    assert set(names) <= set(found)
    with pytest.raises(ClosedError):
        opened.database.write(remembers("late"))


def test_a_read_changes_nothing(opened: Opened) -> None:
    name = new_id("r")
    opened.database.read(remembers(name)).exception(WAIT_S)
    assert not opened.remembered(name)


CHILD = """
import sys
from coordinator.store.database import Database
from ledger.engine import make_engine
database = Database(make_engine(sys.argv[1]), lambda _: None)
number = 0
while True:
    number += 1
    name = f"r_{number}"
    database.write(lambda tx: tx.remember("acct_buyer", name, bytes(32), "x")).result()
    print(number, flush=True)
"""


def test_what_was_answered_outlives_a_kill(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'usance.db'}"
    engine = make_engine(url)
    upgrade(engine)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", CHILD, url], stdout=subprocess.PIPE, env=environment)
    assert child.stdout is not None
    answered = 0
    while answered < 50:
        answered = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split()
    answered = int(rest[-1]) if rest else answered
    child.wait()
    child.stdout.close()
    with engine.connect() as connection:
        count = connection.execute(text("SELECT count(*) FROM request")).scalar_one()
    engine.dispose()
    assert answered <= count <= answered + 1
