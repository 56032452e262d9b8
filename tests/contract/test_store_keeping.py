"""What is asked of a database as a whole. There is none of it in memory: nobody keeps a backup of that."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from coordinator.domain.archive import Archived, Part
from coordinator.domain.claim import Strike
from coordinator.domain.credit import Credit
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.job import LogChunk, LogState
from coordinator.domain.metering import Line
from coordinator.domain.pricing import Charge
from coordinator.domain.states import AttemptState, Cause, EndReason, JobState
from coordinator.services import restoration
from coordinator.store.transaction import SqlTransaction
from ledger.entries import hold, release
from runtime.ids import new_uuid
from tests.support.store_fixtures import BUYER, DIGEST
from tests.support.values import attempt, job, record

ENDED_MS = 5_000


@pytest.fixture
def tx(market_engine: Engine) -> Iterator[SqlTransaction]:
    with market_engine.connect() as connection, connection.begin() as whole:
        yield SqlTransaction(connection)
        whole.rollback()


@pytest.fixture
def old(market: SqlTransaction) -> SqlTransaction:
    """A job that has ended, with two bill lines, output and an event; something went back of the second."""
    live = attempt()
    named: dict[str, Any] = {"account_id": BUYER, "job_id": "job_1", "amount_micro": 5, "event_ms": 1}
    market.post([hold(transfer_id=new_uuid(), **named)], 1)
    market.post([release(transfer_id=new_uuid(), **named)], 1)
    market.insert_attempt(live)
    first = record(None, 1_000)
    nothing = Charge(charge_micro=0, fee_micro=0, earning_micro=0)
    for one in (first, record(first, 2_000)):
        line = Line(record=one, witnessed_ms=0, billed_through_ms=0, charge=nothing)
        market.insert_lines("att_1", [(line, "")])
    market.insert_credit("att_1", Credit(number=2, earning_micro=1, fee_micro=0), "t", "the host was lost")
    market.append_log("att_1", [LogChunk(offset=0, stream=1, data=b"x")], 1)
    event = NewEvent(kind=EventKind.SUBMITTED, job_id="job_1", text="a", job_state=JobState.QUEUED)
    market.append_events([event], 1)
    over = replace(
        live,
        state=AttemptState.ENDED,
        end_reason=EndReason.EXITED,
        cause=Cause.BUYER,
        log_offset=1,
        log_state=LogState.COMPLETE,
        meter=replace(live.meter, usage_number=2, usage_end_ms=2_000),
    )
    assert market.save_attempt(live, over)
    assert market.save_job(job(), job(state=JobState.CANCELLED, cause=Cause.BUYER, ended_ms=ENDED_MS))
    return market


def part(which: Part, **changes: Any) -> Archived:
    plain = Archived(
        job_id="job_1",
        part=which,
        file="usance-2026-01.tar",
        sha256=DIGEST,
        lines=2,
        events=1,
        charge_micro=0,
        archived_ms=9,
    )
    return replace(plain, **changes)


def counts(tx: SqlTransaction) -> list[int]:
    names = ("bill_line", "event", "log_chunk")
    return [tx.connection.scalar(text(f"SELECT count(*) FROM {name}")) for name in names]


def test_only_what_is_old_and_settled_may_leave(old: SqlTransaction) -> None:
    assert [one.id for one in old.archivable(ENDED_MS + 1, "", 9)] == ["job_1"]
    assert [one.id for one in old.output_droppable(ENDED_MS + 1, "", 9)] == ["job_1"]
    for before_ms, after in ((ENDED_MS, ""), (ENDED_MS + 1, "job_1")):
        assert old.archivable(before_ms, after, 9) == old.output_droppable(before_ms, after, 9) == []
    (found,) = old.attempts_of_jobs(["job_1"])["job_1"]
    old.save_attempt(found, replace(found, log_state=LogState.OPEN))
    assert old.archivable(ENDED_MS + 1, "", 9) == [], "some of its output is still to come"


def test_what_has_left_is_deleted_and_named_and_nothing_else_is(old: SqlTransaction) -> None:
    assert counts(old) == [2, 1, 1]
    old.insert_archived([part(Part.OUTPUT, events=0, lines=1)])
    assert counts(old) == [2, 1, 0]
    assert old.output_droppable(ENDED_MS + 1, "", 9) == []
    for table in ("bill_line", "event"):
        with pytest.raises(DBAPIError, match=f"{table} is append-only"), old.connection.begin_nested():
            old.connection.execute(text(f"DELETE FROM {table}"))
    old.insert_archived([part(Part.RECORDS)])
    assert counts(old) == [1, 0, 0], "the line that something went back of stays with it"
    assert [one.part for one in old.archived(["job_1", "job_2"])["job_1"]] == [Part.OUTPUT, Part.RECORDS]
    assert old.archivable(ENDED_MS + 1, "", 9) == []
    assert [one.part for one in old.archived_after(("", ""), 9)] == [Part.OUTPUT, Part.RECORDS]
    assert [one.part for one in old.archived_after(("job_1", "output"), 9)] == [Part.RECORDS]
    assert [one.id for one in old.jobs_after("", 9)] == ["job_1"]
    assert old.jobs_after("job_1", 9) == []
    assert old.market_violations() == []


def test_a_job_that_left_with_other_charges_than_it_had_is_found(old: SqlTransaction) -> None:
    old.insert_archived([part(Part.RECORDS, charge_micro=7)])
    assert old.market_violations() == ["job_1 was charged 0 but usance-2026-01.tar has lines of 7"]


def test_a_restored_database_knows_it_and_says_so(market: SqlTransaction) -> None:
    assert market.restoration() is None
    market.insert_attempt(attempt())
    market.save_job(job(), job(state=JobState.STARTING))
    event = NewEvent(kind=EventKind.SUBMITTED, job_id="job_1", text="a", job_state=JobState.QUEUED)
    market.append_events([event], 7)
    before = market.standing()
    assert (before.event_number, before.transfers, before.seal_hash) == (1, 1, b"")
    market.insert_enrolment_token(b"x" * 32, BUYER, 10**9)
    made = restoration.mark(market, 2_000_000)
    assert made == market.restoration()
    assert (made.number, made.jobs, made.attempts, made.known_ms) == (1, 1, 1, 1_000_000)
    assert made.seal_hash == market.standing().seal_hash != b""
    (told,) = market.events_after("job_1", 1, 9)
    assert (told.number, told.what.attempt_id) == (1_000_000_002, "att_1")
    assert [one.id for one in market.attempts_since_restored(made)] == ["att_1"]
    assert market.use_enrolment_token(b"x" * 32, DIGEST, "host_9", 2_000_001) is None, "closed"
    assert market.close_what_was_open(2_000_002) == 0, "nothing is open"
    assert [(one.number, one.name != made.name) for one in [restoration.mark(market, 3_000_000)]] == [
        (2, True)
    ]
    assert len(market.restorations()) == 2


def test_what_hosts_hold_and_nobody_knows_is_counted(market: SqlTransaction) -> None:
    market.insert_strike("host_1", Strike.UNKNOWN_ATTEMPT, "att_9", "", 50, 1_234)
    market.insert_strike("host_1", Strike.TAKEN_GPU, "GPU-1", "", 60)
    (found,) = market.strangers(50)
    assert (found.host_id, found.attempt_id, found.run_ms) == ("host_1", "att_9", 1_234)
    assert market.strangers(51) == []


def test_who_there_is_and_no_token_of_theirs_is_good_any_longer(market: SqlTransaction) -> None:
    assert list(market.host_ids()) == ["host_1"]
    assert list(market.account_ids()) == ["acct_buyer", "acct_seller"]
    market.insert_token(DIGEST, BUYER, 1, 10_000)
    assert market.revoke_tokens(20_000) == 0, "it is over"
    assert market.revoke_tokens(5_000) == 1
    assert market.bearer(DIGEST, 6_000) is None
    market.revoke_host("host_1", 5)
    assert list(market.host_ids()) == []
