"""The verbs of the store that keep bills, output, events and money, on both databases alike."""

from dataclasses import replace

import pytest

from coordinator.domain.account import Balances
from coordinator.domain.credit import Credit
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.job import LogChunk
from coordinator.domain.metering import Line
from coordinator.domain.pricing import Charge
from coordinator.domain.states import Cause, JobState
from coordinator.store.transaction import SqlTransaction
from ledger.entries import Status, capture, hold
from runtime.evidence import GpuUse
from runtime.ids import new_uuid
from tests.support.store_fixtures import BUYER, SELLER
from tests.support.values import attempt, job, meter, record

# Bill lines and output.


def line(number_after: Line | None = None, charge: int = 1_000) -> Line:
    use = GpuUse(gpu_uuid="GPU-1", utilization_percent=0, memory_used_bytes=None, energy_mj=2**53)
    before = number_after.record if number_after else None
    made = record(before, (before.end_ms if before else 0) + 1_000, gpus=(use,))
    return Line(
        record=made,
        witnessed_ms=60_000,
        billed_through_ms=made.end_ms,
        charge=Charge(charge_micro=charge, fee_micro=charge // 20, earning_micro=charge - charge // 20),
    )


def test_credits_come_back_as_they_went_in(market: SqlTransaction) -> None:
    market.insert_attempt(attempt())
    market.insert_lines("att_1", [(line(), "transfer_1")])
    back = Credit(number=1, earning_micro=950, fee_micro=50)
    market.insert_credit("att_1", back, "transfer_2", "the host was lost")
    assert market.credits_of(["att_1", "att_9"]) == {
        "att_1": [(back, "transfer_2", "the host was lost")],
        "att_9": [],
    }


def test_bill_lines_come_back_as_they_went_in(market: SqlTransaction) -> None:
    market.insert_attempt(attempt())
    first = line()
    second = line(first, charge=0)
    lines = [(first, str(new_uuid())), (second, "")]
    market.insert_lines("att_1", lines)
    assert market.lines_of(["att_1", "att_9"]) == {"att_1": lines, "att_9": []}
    assert market.lines_of(["att_1"], number_min=2) == {"att_1": lines[1:]}
    assert market.lines_of(["att_1"], number_max=1) == {"att_1": lines[:1]}


def test_bill_lines_are_read_on_from_any_of_them(market: SqlTransaction) -> None:
    market.insert_attempt(attempt())
    first = line()
    lines = [(first, "transfer_1"), (line(first), "transfer_2")]
    market.insert_lines("att_1", lines)
    whole = [("att_1", *each) for each in lines]
    epoch = attempt().epoch
    assert market.lines_after("job_1", 0, 0, 9) == whole
    assert market.lines_after("job_1", 0, 0, 1) == whole[:1]
    assert market.lines_after("job_1", epoch, 1, 9) == whole[1:]
    assert market.lines_after("job_1", epoch, 2, 9) == []
    assert market.lines_after("job_1", epoch + 1, 0, 9) == []
    assert market.lines_after("job_9", 0, 0, 9) == []


def test_output_is_read_from_any_byte_on(market: SqlTransaction) -> None:
    market.insert_attempt(attempt())
    chunks = [
        LogChunk(offset=0, stream=1, data=b"abc"),
        LogChunk(offset=3, stream=2, data=b"\x00\xff"),
        LogChunk(offset=5, stream=1, data=b"d"),
    ]
    market.append_log("att_1", chunks, 5)
    assert market.log_after("att_1", 0, 9) == chunks
    assert [chunk.stored_ms for chunk in market.log_after("att_1", 1, 9)] == [5, 5, 5]
    assert market.log_after("att_1", 0, 1) == chunks[:1]
    assert market.log_after("att_1", 1, 2) == [LogChunk(offset=1, stream=1, data=b"bc"), chunks[1]]
    assert market.log_after("att_1", 5, 9) == chunks[2:]
    assert market.log_after("att_1", 6, 9) == market.log_after("att_9", 0, 9) == []


def test_where_the_output_since_a_moment_begins(market: SqlTransaction) -> None:
    market.insert_attempt(attempt())
    offset, begins = 0, list[int]()
    for number in range(50):
        begins.append(offset)
        size = 1 + number % 7
        market.append_log("att_1", [LogChunk(offset=offset, stream=1, data=b"x" * size)], 10 * number)
        offset += size
    for number, begin in enumerate(begins):
        assert market.log_offset_since("att_1", 10 * number) == begin
        assert market.log_offset_since("att_1", 10 * number - 9) == begin
    assert market.log_offset_since("att_1", -5) == 0
    assert market.log_offset_since("att_1", 491) is None
    assert market.log_offset_since("att_9", 0) is None


# Events.


def event(text: str, **changes) -> NewEvent:
    plain = NewEvent(kind=EventKind.SUBMITTED, job_id="job_1", text=text, job_state=JobState.QUEUED)
    return replace(plain, **changes)


def test_events_are_numbered_over_the_whole_market_and_read_by_job(market: SqlTransaction) -> None:
    market.insert_job(job("job_2"))
    full = event("all", kind=EventKind.BILLED, attempt_id="att_1", cause=Cause.HOST, bill_line_number=3)
    market.append_events([event("a"), event("b", job_id="job_2")], 5)
    market.append_events([full], 6)
    found = market.events_after("job_1", 0, 9)
    assert [(e.number - found[0].number, e.happened_ms, e.what) for e in found] == [
        (0, 5, event("a")),
        (2, 6, full),
    ]
    assert market.events_after("job_1", found[0].number, 9) == found[1:]
    assert market.events_after("job_1", 0, 1) == found[:1]
    assert market.events_after("job_9", 0, 9) == []


# Money.


def test_money_and_jobs_are_one_transaction(market: SqlTransaction) -> None:
    held = hold(transfer_id=new_uuid(), account_id=BUYER, job_id="job_1", amount_micro=1_000_000, event_ms=2)
    paid = capture(
        transfer_id=new_uuid(), job_id="job_1", seller_id=SELLER, amount_micro=1_000, fee_micro=50, event_ms=3
    )
    assert [outcome.status for outcome in market.post([held, paid], 5)] == [Status.POSTED] * 2
    market.save_job(job(), job(charged_micro=1_000))
    assert market.balances([BUYER, SELLER, "acct_nobody"]) == {
        BUYER: Balances(wallet_micro=9_000_000, held_micro=999_000, earnings_micro=0),
        SELLER: Balances(wallet_micro=0, held_micro=0, earnings_micro=950),
        "acct_nobody": Balances(wallet_micro=0, held_micro=0, earnings_micro=0),
    }
    lines = dict(market.trial_balance())
    assert sum(lines.values()) == 0
    assert (lines["wallet"], lines["hold"], lines["earnings"], lines["fee"]) == (9_000_000, 999_000, 950, 50)
    assert market.post([], 5) == []
    assert market.audit() == ([], 3)


def test_what_was_posted_is_sealed_once(market: SqlTransaction) -> None:
    sealed = market.seal(7)
    assert sealed is not None
    assert (sealed[0], len(sealed[1])) == (1, 32)
    assert market.seal(8) is None
    assert market.audit()[0] == []


# What the audit finds.


def sound(market: SqlTransaction) -> SqlTransaction:
    """A job that runs on the host, with its hold and a paid record."""
    first = line()
    market.post(
        [hold(transfer_id=new_uuid(), account_id=BUYER, job_id="job_1", amount_micro=1_000_000, event_ms=2)],
        5,
    )
    market.insert_attempt(attempt())
    pay = capture(
        transfer_id=new_uuid(), job_id="job_1", seller_id=SELLER, amount_micro=1_000, fee_micro=50, event_ms=3
    )
    market.post([pay], 5)
    market.insert_lines("att_1", [(first, str(pay.id))])
    market.save_attempt(attempt(), attempt(meter=meter(usage_number=1, witnessed_ms=1_000, billed_ms=1_000)))
    market.save_job(job(), job(charged_micro=1_000, state=JobState.STARTING))
    market.append_events([event("a")], 5)
    return market


def test_what_is_in_order_is_found_in_order(market: SqlTransaction) -> None:
    assert sound(market).market_violations() == []


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        ("UPDATE job SET charged_micro = 999", "job_1 was charged 999 but its bill says 1000"),
        ("UPDATE job SET charged_micro = 999", "job_1 should hold 999001 but holds 999000"),
        ("UPDATE job SET state = 'failed', ended_ms = 9", "job_1 should hold 0 but holds 999000"),
        ("UPDATE attempt SET usage_number = 2", "att_1 stands at record 2 but has 1"),
        (
            "UPDATE attempt SET state = 'ended', end_reason = 'exited', cause = 'buyer'",
            "GPU GPU-1 is still taken by att_1, which has ended",
        ),
        ("UPDATE job SET state = 'queued'", "job_1 is queued and has 1 live attempts"),
        (
            "UPDATE attempt SET state = 'ended', end_reason = 'exited', cause = 'buyer'",
            "job_1 is starting and has 0 live attempts",
        ),
        ("UPDATE counter SET value = value + 1", "events are numbered up to"),
    ],
)
def test_the_audit_finds_what_is_broken(market: SqlTransaction, breaks: str, words: str) -> None:
    sound(market).connection.exec_driver_sql(breaks)
    assert any(words in violation for violation in market.market_violations())


def test_wakes_are_kept_for_after_the_commit(tx: SqlTransaction) -> None:
    tx.wake("queue", "job_1")
    tx.wake("queue")
    assert tx.topics == {"queue", "job_1"}
