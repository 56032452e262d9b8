"""A page of a list costs the same number of queries, and reads no more rows, however long the list is."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Table, event, text

from coordinator.domain.account import Account, Role
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.host import HostState
from coordinator.domain.metering import Line
from coordinator.domain.pricing import Charge
from coordinator.domain.states import AttemptState, Cause, EndReason, JobState
from coordinator.services import accounts, books, hosts, jobs, operations, reading, tokens
from coordinator.services.books import Period, Purse
from coordinator.services.reading import BillPlace
from coordinator.store import tables
from coordinator.store.ports import Transaction
from coordinator.store.transaction import SqlTransaction
from tests.support.store_fixtures import BUYER, DIGEST, SELLER, seed
from tests.support.values import at, attempt, job, record

FEW, MANY = 10, 100_000
PAGE = 50
WHO = Account(id=BUYER, name="buyer", roles=frozenset({Role.BUYER}))
WHOSE = Account(id=SELLER, name="seller", roles=frozenset({Role.SELLER}))

Read = Callable[[Transaction], object]
READS: dict[str, Read] = {
    "jobs": lambda tx: jobs.page(tx, WHO, live_only=False, before_id="", limit=PAGE),
    "jobs, a later page": lambda tx: jobs.page(
        tx, WHO, live_only=False, before_id="job_01000009", limit=PAGE
    ),
    "jobs, live": lambda tx: jobs.page(tx, WHO, live_only=True, before_id="", limit=PAGE),
    "a job": lambda tx: jobs.view(tx, WHO, "job_01000001"),
    "hosts": lambda tx: hosts.of_seller(tx, SELLER, "", PAGE),
    "accounts": lambda tx: accounts.accounts_page(tx, "", PAGE),
    "tokens": lambda tx: tokens.page(tx, WHO, "", None, None, PAGE),
    "statement": lambda tx: books.statement(tx, WHO, Purse.WALLET, Period(), 0, PAGE),
    "costs": lambda tx: books.costs(tx, WHO, Period(), "", PAGE),
    "earnings": lambda tx: books.earnings(tx, WHOSE.id, Period(), "", PAGE),
    "bill": lambda tx: reading.bill(tx, WHO, "job_01000001", BillPlace(), PAGE),
    "events": lambda tx: reading.events(tx, WHO, "job_01000001", 0, PAGE),
    "output": lambda tx: reading.log_page(tx, WHO, "job_01000001", "", 0, PAGE),
    "vitals": lambda tx: tx.vitals(),
    "GPUs held": lambda tx: tx.held_by_buyers(),
    "wallet": lambda tx: accounts.wallet(tx, BUYER),
    "all hosts": lambda tx: operations.all_hosts(tx, None, "", PAGE),
    # What the queue is looked at by, and what is looked for at each beat.
    "queue": lambda tx: tx.queue(PAGE),
    "attempts of a host": lambda tx: tx.attempts_on_host("host_1"),
    "attempts awaited": lambda tx: tx.attempts_awaited("", PAGE),
    "a part of the queue": lambda tx: tx.queue_after("", PAGE),
    "a part of the hosts": lambda tx: tx.hosts_after("", PAGE),
    "rooms": lambda tx: tx.rooms(),
}
# Of these SQLite may read every row: there are few. (`o` is a transfer that another one corrects, `json_each`
# what is asked for.)
_SMALL = (
    "json_each",
    "host",
    "gpu_owner",
    "attempt_gpu",
    "account",
    "account_role",
    "api_token",
    "ledger_",
    "h ",
    "n",
    "o ",
)


class Queries:
    """What a connection was asked."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.asked: list[tuple[str, Any]] = []

    def of(self, read: Read) -> list[tuple[str, Any]]:
        self.asked = []
        event.listen(self.connection, "before_cursor_execute", self._note)
        try:
            read(SqlTransaction(self.connection))
        finally:
            event.remove(self.connection, "before_cursor_execute", self._note)
        return self.asked

    def _note(
        self, _connection: object, _cursor: object, statement: str, parameters: Any, *_: object
    ) -> None:
        self.asked.append((statement, parameters))


def copy(connection: Connection, table: Table, key: str, first: int, last: int, **changed: str) -> None:
    """Rows like the one with this key, numbered; what is changed is SQL in which `i` is the number."""
    names = [column.name for column in table.c]
    values = ", ".join(changed.get(name, f"t.{name}") for name in names)
    connection.execute(
        text(
            f"INSERT INTO {table.name} ({', '.join(names)})"
            f" WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})"
            f" SELECT {values} FROM n, {table.name} t WHERE t.{table.c[0].name} = {key}"
        )
    )


def numbered(prefix: str) -> str:
    return f"'{prefix}_0' || CAST(1000000 + i AS VARCHAR(9))"


def fill(connection: Connection, first: int, last: int) -> None:
    """So many jobs of the buyer that have ended, each with an attempt and an event."""
    copy(connection, tables.job, "'job_1'", first, last, id=numbered("job"))
    copy(connection, tables.attempt, "'att_1'", first, last, id=numbered("att"), job_id=numbered("job"))
    copy(connection, tables.event, "1", first, last, number="100 + i", job_id=numbered("job"))


@pytest.fixture(scope="module")
def counted(market_engine: Engine) -> Iterator[tuple[dict[str, list[Any]], dict[str, list[Any]], Connection]]:
    """The queries of every read, with few jobs and with many."""
    with market_engine.connect() as connection, connection.begin() as whole:
        tx = SqlTransaction(connection)
        seed(tx)
        tx.insert_host("host_2", DIGEST, at(0))
        tx.save_link("host_1", HostState.LOST, HostState.ONLINE, "connected", 5)
        tx.insert_attempt(attempt())
        charge = Charge(charge_micro=0, fee_micro=0, earning_micro=0)
        line = Line(record=record(None, 1_000), witnessed_ms=0, billed_through_ms=0, charge=charge)
        tx.insert_lines("att_1", [(line, "")])
        ended = attempt(state=AttemptState.ENDED, end_reason=EndReason.EXITED, cause=Cause.BUYER)
        tx.save_attempt(attempt(), replace(ended, log_state=ended.log_state.COMPLETE))
        tx.save_job(job(), job(state=JobState.SUCCEEDED, cause=Cause.BUYER, ended_ms=9, exit_code=0))
        over = NewEvent(kind=EventKind.ENDED, job_id="job_1", text="over", job_state=JobState.SUCCEEDED)
        tx.append_events([over], 9)
        tx.insert_job(job("job_02000000"))
        queries = Queries(connection)
        fill(connection, 1, FEW)
        few = {name: queries.of(read) for name, read in READS.items()}
        fill(connection, FEW + 1, MANY)
        if connection.dialect.name == "sqlite":
            connection.execute(text("ANALYZE"))
        many = {name: queries.of(read) for name, read in READS.items()}
        yield few, many, connection
        whole.rollback()


@pytest.mark.parametrize("name", READS)
def test_it_asks_as_often_with_many_jobs_as_with_few(counted, name):
    few, many, _ = counted
    assert [_plain(statement) for statement, _ in many[name]] == [
        _plain(statement) for statement, _ in few[name]
    ]
    assert len(many[name]) <= 8


@pytest.mark.parametrize("name", READS)
def test_it_reads_no_table_of_many_rows_from_end_to_end(counted, name):
    _, many, connection = counted
    if connection.dialect.name != "sqlite":
        return  # its planner goes by statistics that a transaction of its own would have to gather
    scanned = []
    for statement, parameters in many[name]:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        steps = [str(row[3]) for row in plan]
        scanned += [(step, statement) for step in steps if step.startswith("SCAN ") and not _is_small(step)]
    assert scanned == []


def _plain(statement: str) -> str:
    """Without how many ids it names."""
    return re.sub(r" IN \((?:[^()]|\([^()]*\))*\)", " IN (…)", statement)


def _is_small(step: str) -> bool:
    """It goes over few rows, or over an index of few."""
    return step.removeprefix("SCAN ").startswith(_SMALL) or "_live_" in step or "_host_ix" in step
