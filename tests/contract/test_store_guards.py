"""What the market's databases themselves refuse, whoever asks and however."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from coordinator.domain.act import Act
from coordinator.domain.archive import Archived, Part
from coordinator.domain.claim import Strike
from coordinator.domain.credit import Credit
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.host import Certificate
from coordinator.domain.job import LogChunk
from coordinator.domain.metering import Line
from coordinator.domain.pricing import Charge
from coordinator.domain.restoration import Restoration
from coordinator.domain.states import AttemptState, Cause, EndReason, JobState
from coordinator.store import migrate, tables
from coordinator.store.transaction import SqlTransaction
from coordinator.store.triggers import APPEND_ONLY
from ledger.engine import make_engine
from tests.integration.test_ledger_migrations import of_the_ledger, schema_of
from tests.rig.postgres import Postgres
from tests.support.store_fixtures import BUYER, DIGEST
from tests.support.values import at, attempt, job, meter, record

ACT = Act(
    id="act_1",
    happened_ms=1,
    who=BUYER,
    token_id="tok_1",
    address="192.0.2.1",
    rpc="AdminService/Deposit",
    request="amount_micro=1",
    result="OK",
    request_id="rpc_1",
)

# Of a job that has none of it: nothing goes.
ARCHIVED = Archived(
    job_id="job_2",
    part=Part.OUTPUT,
    file="a",
    sha256=DIGEST,
    lines=0,
    events=0,
    charge_micro=0,
    archived_ms=1,
)
RESTORED = Restoration(
    number=1,
    name="b",
    restored_ms=2,
    known_ms=1,
    event_number=1,
    events_left_out=7,
    transfer_seq=1,
    seal_hash=DIGEST,
    jobs=0,
    attempts=0,
)


@pytest.fixture
def tx(market_engine: Engine) -> Iterator[SqlTransaction]:
    """One that writes at once: it is told at once."""
    with market_engine.connect() as connection, connection.begin() as whole:
        yield SqlTransaction(connection)
        whole.rollback()


@pytest.fixture
def full(market: SqlTransaction) -> SqlTransaction:
    """A market with a row in every append-only table, and a live attempt."""
    market.insert_attempt(attempt())
    market.insert_job(job("job_2"))
    market.insert_host("host_2", DIGEST, at(0))
    market.own_gpus("host_2", ["GPU-of-host_2"])
    charge = Charge(charge_micro=0, fee_micro=0, earning_micro=0)
    line = Line(record=record(None, 1_000), witnessed_ms=0, billed_through_ms=0, charge=charge)
    market.insert_lines("att_1", [(line, "")])
    market.insert_credit("att_1", Credit(number=1, earning_micro=1, fee_micro=0), "t", "the host was lost")
    market.append_log("att_1", [LogChunk(offset=0, stream=1, data=b"x")], 1)
    market.remember(BUYER, "r1", DIGEST, "job_1")
    event = NewEvent(kind=EventKind.SUBMITTED, job_id="job_1", text="a", job_state=JobState.QUEUED)
    market.append_events([event], 1)
    market.insert_strike("host_1", Strike.FALSE_CLAIM, "att_1", "a figure that can't be", 1)
    market.append_acts([ACT])
    market.insert_archived([ARCHIVED])
    market.insert_restoration(RESTORED)
    market.insert_certificate("host_1", Certificate(serial="1f", authority_digest=DIGEST, expires_ms=9), 1)
    return market


def refused(market: SqlTransaction, statement: str) -> str:
    """The database's own words."""
    with pytest.raises(DBAPIError) as caught, market.connection.begin_nested():
        market.connection.execute(text(statement))
    return str(caught.value.orig)


COLUMN = {
    "act": "result",
    "archived": "file",
    "bill_line": "start_ms",
    "credit": "fee_micro",
    "event": "happened_ms",
    "host_certificate": "expires_ms",
    "log_chunk": "stream",
    "request": "request_id",
    "restoration": "name",
    "strike": "detail",
}


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("verb", ["update", "delete", "replace"])
def test_what_was_written_once_stays(full: SqlTransaction, table: str, verb: str) -> None:
    column = COLUMN[table]
    statements = {
        "update": f"UPDATE {table} SET {column} = {column}",
        "delete": f"DELETE FROM {table}",
        "replace": f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
    }
    if verb == "replace" and full.connection.dialect.name != "sqlite":
        statements["replace"] = f"TRUNCATE {table} CASCADE"
    assert f"market: {table} is append-only" in refused(full, statements[verb])


def test_a_gpu_has_one_attempt_whoever_asks(full: SqlTransaction) -> None:
    """Also behind the back of the scheduler."""
    refused(full, "INSERT INTO attempt_gpu VALUES ('GPU-1', 'att_1', 'host_1')")


def test_a_job_has_one_live_attempt(full: SqlTransaction) -> None:
    second = attempt(
        id="att_2",
        epoch=2,
        gpus=(replace(attempt().gpus[0], uuid="GPU-2"),),
        meter=meter(attempt_id="att_2", epoch=2),
    )
    with pytest.raises(IntegrityError), full.connection.begin_nested():
        full.insert_attempt(second)
    over = attempt(state=AttemptState.ENDED, end_reason=EndReason.HOST_LOST, cause=Cause.HOST)
    full.save_attempt(attempt(), over)
    assert full.insert_attempt(second)


def test_an_epoch_of_a_job_is_given_once(full: SqlTransaction) -> None:
    over = attempt(state=AttemptState.ENDED, end_reason=EndReason.HOST_LOST, cause=Cause.HOST)
    full.save_attempt(attempt(), over)
    with pytest.raises(IntegrityError), full.connection.begin_nested():
        full.insert_attempt(attempt(id="att_2"))


IMPOSSIBLE = {
    "a state that does not exist": "UPDATE job SET state = 'paused'",
    "a cause that does not exist": "UPDATE job SET cause = 'weather'",
    "an end without its time": "UPDATE job SET state = 'failed'",
    "a time of an end that was not": "UPDATE job SET ended_ms = 5",
    "more charged than the budget": "UPDATE job SET charged_micro = budget_micro + 1",
    "less than nothing charged": "UPDATE job SET charged_micro = -1",
    "an attempt's state that does not exist": "UPDATE attempt SET state = 'lost'",
    "an end without its reason": "UPDATE attempt SET state = 'ended'",
    "a reason for an end that was not": "UPDATE attempt SET end_reason = 'exited', cause = 'buyer'",
    "a reason without its cause": "UPDATE attempt SET state = 'ended', end_reason = 'exited'",
    "a reason that does not exist": "UPDATE attempt SET state = 'ended', end_reason = 'x', cause = 'host'",
    "more billed than witnessed": "UPDATE attempt SET billed_ms = 1",
    "more billed than paid for": "UPDATE attempt SET billed_ms = run_ms_affordable + 1,"
    " witnessed_ms = run_ms_affordable + 1",
    "output in a state that does not exist": "UPDATE attempt SET log_state = 'x'",
    "an attempt of no job": "UPDATE attempt SET job_id = 'job_9'",
    "a host's state that does not exist": "UPDATE host SET state = 'asleep'",
    "a hold on a host that does not exist": "UPDATE host SET hold = 'asleep'",
    "a reliability of more than all": "UPDATE host SET reliability_ppm = 1000001",
    "a credit of no line": "INSERT INTO credit SELECT attempt_id, 9, 1, 0, 't', '' FROM bill_line",
    "a host of nobody": "UPDATE host SET account_id = 'acct_9'",
    "a job of nobody": "UPDATE job SET account_id = 'acct_9'",
    "a role that does not exist": "UPDATE account_role SET role = 'king'",
    "two accounts of one name": "UPDATE account SET name = 'same'",
    "a used token without its key": "UPDATE enrolment_token SET host_id = 'host_1'",
    "a GPU of no attempt": "UPDATE attempt_gpu SET attempt_id = 'att_9'",
    "a GPU sold by another host than its attempt's": "UPDATE attempt_gpu SET host_id = 'host_2'",
    "a GPU sold by a host that it does not belong to": "UPDATE attempt_gpu SET gpu_uuid = 'GPU-of-host_2'",
    "a GPU that changes hosts while it is sold": "UPDATE gpu_owner SET host_id = 'host_2'"
    " WHERE gpu_uuid = 'GPU-1'",
    "a GPU let go of while it is sold": "DELETE FROM gpu_owner WHERE gpu_uuid = 'GPU-1'",
    "a claim to a GPU of nobody's": "INSERT INTO gpu_claim VALUES ('GPU-x', 'host_1', 1)",
    "a strike of a kind that does not exist": "INSERT INTO strike VALUES ('host_1', 2, 'odd', 'x', '', 1)",
    "the same strike twice": "INSERT INTO strike VALUES ('host_1', 2, 'false_claim', 'att_1', '', 1)",
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_an_impossible_row_is_refused(full: SqlTransaction, what: str) -> None:
    refused(full, IMPOSSIBLE[what])


LINE = {"witnessed_ms": 5, "billed_through_ms": 5, "charge_micro": 5, "fee_micro": 1, "earning_micro": 4}


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"earning_micro": 5}, False),  # parts that are more than the whole
        ({"witnessed_ms": 4}, False),
        ({"billed_through_ms": 1_001, "witnessed_ms": 2_000}, False),  # beyond the record's end
        ({"transfer_id": "''"}, False),  # charged without a transfer
        ({"attempt_id": "'att_9'"}, False),
    ],
)
def test_a_bill_line_is_possible_or_refused(full: SqlTransaction, changes, good: bool) -> None:
    values = {"attempt_id": "'att_1'", "transfer_id": "'t'", **LINE, **changes}
    names = ", ".join(values)
    given = ", ".join(str(value) for value in values.values())
    statement = (
        f"INSERT INTO bill_line (number, start_ms, end_ms, gpus, previous_digest, digest, {names})"
        f" SELECT 2, 0, 1000, gpus, digest, digest, {given} FROM bill_line"
    )
    if good:
        full.connection.execute(text(statement))
    else:
        refused(full, statement)


def test_output_is_of_one_of_two_streams(full: SqlTransaction) -> None:
    refused(full, "INSERT INTO log_chunk SELECT attempt_id, 1, 3, data FROM log_chunk")


def test_a_request_has_one_answer(full: SqlTransaction) -> None:
    with pytest.raises(IntegrityError), full.connection.begin_nested():
        full.remember(BUYER, "r1", DIGEST, "job_2")


def test_two_jobs_have_two_ids(full: SqlTransaction) -> None:
    with pytest.raises(IntegrityError), full.connection.begin_nested():
        full.insert_job(job())


# Migrations.


def of_the_market(engine: Engine) -> dict[str, set[tuple[object, ...]]]:
    schema = schema_of(engine)
    ledger = of_the_ledger(schema)
    left_out = {"alembic_version"}
    return {
        what: {row for row in rows - ledger[what] if not left_out & {str(value) for value in row[:3]}}
        for what, rows in schema.items()
    }


def same_from_migrations_and_metadata(migrated: Engine, created: Engine) -> None:
    try:
        migrate.upgrade(migrated)
        tables.metadata.create_all(created)
        found = of_the_market(created)
        assert sum(len(rows) for rows in found.values()) > 25
        assert of_the_market(migrated) == found
    finally:
        migrated.dispose()
        created.dispose()


def test_migrations_and_metadata_give_the_same_market_on_sqlite(tmp_path: Path) -> None:
    migrated, created = (make_engine(f"sqlite:///{tmp_path}/{name}.db") for name in ("migrated", "created"))
    same_from_migrations_and_metadata(migrated, created)


@pytest.mark.postgres
def test_migrations_and_metadata_give_the_same_market_on_postgresql(postgres_server: Postgres) -> None:
    with postgres_server.database() as first, postgres_server.database() as second:
        same_from_migrations_and_metadata(make_engine(first), make_engine(second))
