"""Many callers, one writer, one commit for all that queued."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from ledger import audit, book, engine
from ledger.chart import wallet
from ledger.entries import Status
from ledger.group import GroupClosedError, GroupCommit, GroupFullError
from tests.support import ledger as make
from tests.support.ledger import BUYER


@pytest.fixture
def ledger(ledger_engine):
    make.start(ledger_engine)
    return ledger_engine


@pytest.fixture
def group(ledger):
    writer = GroupCommit(ledger, lambda: 10)
    yield writer
    writer.close()


def commits_of(ledger):
    seen = []
    event.listen(ledger, "commit", lambda _conn: seen.append(1))
    return seen


def check(ledger, total):
    with engine.reading(ledger) as conn:
        assert list(audit.audit(conn)) == []
        assert book.balance(conn, wallet(BUYER)) == total


def test_callers_of_asyncio_share_commits_and_each_gets_its_own_answer(ledger, group):
    commits = commits_of(ledger)

    async def caller(number):
        mine = []
        for turn in range(10):
            key = number * 100 + turn
            mine.append((key, await group.post([make.deposit(key, 1), make.hold(50_000 + key, 10**9)])))
        return mine

    async def everybody():
        return await asyncio.gather(*(caller(number) for number in range(1, 65)))

    for answers in asyncio.run(everybody()):
        for key, outcomes in answers:
            assert [(outcome.id, outcome.status) for outcome in outcomes] == [
                (make.number_id(key), Status.POSTED),
                (make.number_id(50_000 + key), Status.INSUFFICIENT_FUNDS),
            ]
    assert len(commits) < 640
    check(ledger, 640)


def test_threads_that_send_the_same_transfer_post_it_once(ledger, group):
    with ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda _: group.submit([make.deposit(1, 7)]), range(50)))
    assert all(future.result(60)[0].ok for future in futures)
    assert [future.result()[0].status for future in futures].count(Status.POSTED) == 1
    check(ledger, 7)


def test_a_request_that_cannot_be_posted_takes_no_other_with_it(ledger, group):
    blocked = threading.Event()
    event.listen(ledger, "begin", lambda _conn: blocked.wait(60), once=True)
    good = [group.submit([make.deposit(number, 1)]) for number in range(1, 10)]
    bad = group.submit([make.deposit(50, 1.5)])  # type: ignore[arg-type]
    too_many = group.submit([make.deposit(60, 1)] * (book.BATCH_TRANSFERS_MAX + 1))
    more = [group.submit([make.deposit(number, 1)]) for number in range(20, 30)]
    blocked.set()
    assert all(future.result(60)[0].ok for future in good + more)
    with pytest.raises(TypeError):
        bad.result(60)
    with pytest.raises(book.BatchError):
        too_many.result(60)
    check(ledger, 19)


def test_a_commit_whose_outcome_is_unknown_is_sent_again_and_posts_once(ledger, group):
    """The reply to a commit is lost: it may have happened or not."""
    lost = iter([True, False])

    @event.listens_for(ledger, "commit")
    def lose(conn):
        if next(lost, False):
            # On its way to the disk, and then the line is cut.
            conn.connection.driver_connection.commit()
            raise OperationalError("COMMIT", None, Exception("connection lost"))

    assert group.submit([make.deposit(1, 7)]).result(60)[0].ok
    check(ledger, 7)


def test_a_database_that_stays_away_is_told_to_the_caller(ledger, group):
    @event.listens_for(ledger, "begin")
    def fail(_conn):
        raise OperationalError("BEGIN", None, Exception("gone"))

    with pytest.raises(OperationalError):
        group.submit([make.deposit(1, 7)]).result(60)


def test_closing_serves_what_was_asked_and_takes_no_more(ledger):
    group = GroupCommit(ledger, lambda: 10)
    futures = [group.submit([make.deposit(number, 1)]) for number in range(1, 200)]
    group.close()
    group.close()
    assert all(future.result(0)[0].ok for future in futures)
    with pytest.raises(GroupClosedError):
        group.submit([make.deposit(500, 1)])
    check(ledger, 199)


def test_a_queue_that_is_full_says_so(sqlite_ledger, monkeypatch):
    make.start(sqlite_ledger)
    monkeypatch.setattr("ledger.group.QUEUE_REQUESTS_MAX", 3)
    blocked = threading.Event()
    event.listen(sqlite_ledger, "begin", lambda _conn: blocked.wait(60), once=True)
    group = GroupCommit(sqlite_ledger, lambda: 10)

    def ask_for_ten():
        for number in range(1, 11):
            group.submit([make.deposit(number, 1)])

    with pytest.raises(GroupFullError):
        ask_for_ten()
    blocked.set()
    group.close()


def test_a_caller_that_stops_waiting_does_not_stop_its_transfer(ledger, group):
    async def impatient():
        blocked = threading.Event()
        event.listen(ledger, "begin", lambda _conn: blocked.wait(60), once=True)
        task = asyncio.create_task(group.post([make.deposit(1, 7)]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        blocked.set()
        return await group.post([make.deposit(1, 7)])

    assert asyncio.run(impatient())[0].status is Status.EXISTS
    check(ledger, 7)
