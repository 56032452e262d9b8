"""One writer that shares its commits: what it answers is durable, and nobody pays for another's failure."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import OperationalError

from coordinator.store.database import FAILURES_SHARED_MAX, SHARE_MAX, ClosedError, Database
from coordinator.store.migrate import upgrade
from coordinator.store.ports import Transaction
from coordinator.store.transaction import SqlTransaction
from ledger.engine import make_engine
from runtime.ids import new_id
from tests.support.store_fixtures import BUYER, seed
from tests.support.values import attempt

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


@pytest.fixture(scope="module")
def running(market_engine: Engine) -> str:
    """An attempt in the database; each test leaves its meter where it likes."""
    with market_engine.begin() as connection:
        tx = SqlTransaction(connection)
        seed(tx)
        assert tx.insert_attempt(attempt())
    return attempt().id


def counts_up(attempt_id: str) -> Callable[[Transaction], int]:
    """Takes in the next usage record, so to speak; the number of the last before it."""

    def write(tx: Transaction) -> int:
        before = tx.attempts([attempt_id])[attempt_id]
        meter = replace(before.meter, usage_number=before.meter.usage_number + 1)
        assert tx.save_meters([(before, replace(before, meter=meter))])
        return before.meter.usage_number

    return write


def sees(attempt_id: str) -> Callable[[Transaction], int]:
    return lambda tx: tx.attempts([attempt_id])[attempt_id].meter.usage_number


def test_what_goes_on_is_not_read_for_each_of_its_records(opened: Opened, running: str) -> None:
    read: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT") and "FROM attempt" in statement:
            read.append(statement)

    event.listen(opened.engine, "before_cursor_execute", note)
    first = opened.database.write(counts_up(running)).result(WAIT_S)
    later = [opened.database.write(counts_up(running)).result(WAIT_S) for _ in range(3)]
    event.remove(opened.engine, "before_cursor_execute", note)
    assert later == [first + 1, first + 2, first + 3]
    assert len(read) == 1
    # Who only reads sees what is in the database.
    assert opened.database.read(sees(running)).result(WAIT_S) == first + 4


def test_what_was_not_committed_is_not_kept(opened: Opened, running: str) -> None:
    before = opened.database.write(sees(running)).result(WAIT_S)

    def falls(tx: Transaction) -> None:
        counts_up(running)(tx)
        raise ValueError

    assert isinstance(opened.database.write(falls).exception(WAIT_S), ValueError)
    assert opened.database.write(sees(running)).result(WAIT_S) == before


def test_what_another_has_written_meanwhile_is_read_anew(opened: Opened, running: str) -> None:
    """The guard finds it out, so nothing is ever charged by a value that is out of date."""
    before = opened.database.write(sees(running)).result(WAIT_S)
    with opened.engine.begin() as connection:
        connection.execute(text("UPDATE attempt SET usage_number = usage_number + 5"))
    assert opened.database.write(counts_up(running)).result(WAIT_S) == before + 5
    assert opened.database.read(sees(running)).result(WAIT_S) == before + 6


def test_a_commit_that_failed_though_it_was_done_is_found_out(
    opened: Opened, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened.database.write(sees(running)).result(WAIT_S)
    dialect, commit = opened.engine.dialect, opened.engine.dialect.do_commit
    broken = iter([True])

    def cut(connection: object) -> None:
        commit(connection)  # type: ignore[arg-type]
        if next(broken, False):
            raise OperationalError("COMMIT", None, Exception("the connection was cut"))

    def once(tx: Transaction) -> int:
        """As usage is taken in: what is in already is passed over."""
        number = sees(running)(tx)
        return number if number > before else counts_up(running)(tx) + 1

    monkeypatch.setattr(dialect, "do_commit", cut)
    assert opened.database.write(once).result(WAIT_S) == before + 1
    assert opened.database.write(sees(running)).result(WAIT_S) == before + 1


def test_the_writer_keeps_its_connection_until_it_breaks(opened: Opened) -> None:
    """With another one each time, SQLite read all that it needs anew for each commit."""
    taken: list[object] = []
    event.listen(opened.engine, "checkout", lambda *given: taken.append(given))

    def breaks(tx: Transaction) -> None:
        raise OperationalError("UPDATE", None, Exception("the connection was cut"))

    for request_id in ("r1", "r2", "r3"):
        opened.database.write(remembers(request_id)).result(WAIT_S)
    assert len(taken) == 1
    with pytest.raises(OperationalError):
        opened.database.write(breaks).result(WAIT_S)
    opened.database.write(remembers("r4")).result(WAIT_S)
    assert len(taken) == 2
    assert opened.remembered("r4")
