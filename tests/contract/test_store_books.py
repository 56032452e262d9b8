"""The verbs of the store that keep bills, output, events and money, on both databases alike."""

from dataclasses import replace

import pytest

from coordinator.domain.account import Balances
from coordinator.domain.cap import SpendingCap
from coordinator.domain.credit import Credit, Refund
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.job import Job, LogChunk
from coordinator.domain.metering import Line
from coordinator.domain.pricing import Charge
from coordinator.domain.states import Cause, JobState
from coordinator.store.ports_books import hold_id
from coordinator.store.transaction import SqlTransaction
from ledger.book import AccountNotFoundError
from ledger.chart import ADJUSTMENTS, wallet
from ledger.entries import Status, adjustment, capture, deposit, hold
from runtime.evidence import GpuUse
from runtime.ids import first_id, new_uuid
from tests.support.store_fixtures import BUYER, SELLER
from tests.support.values import at, attempt, gpu, job, meter, record

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


def test_what_tells_of_several_lines_is_read_as_one_event_for_each(market: SqlTransaction) -> None:
    """A row for each of them was half of what a usage record cost."""
    billed = event("lines", kind=EventKind.BILLED, attempt_id="att_1", bill_line_number=6)
    before = market.events_after("job_1", 0, 9)
    market.append_events([event("a"), replace(billed, bill_line_first=4), event("b")], 5)
    told = market.events_after("job_1", before[-1].number if before else 0, 9)
    assert [e.what for e in told] == [
        event("a"), *(replace(billed, bill_line_number=n) for n in (4, 5, 6)), event("b"),
    ]  # fmt: skip
    first = told[0].number
    assert [e.number for e in told] == list(range(first, first + 5))
    # Whoever was cut off between two of them, or asks for few, goes on with the next.
    for number in range(first, first + 5):
        assert market.events_after("job_1", number, 2) == told[number + 1 - first : number + 3 - first]


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


def test_an_account_s_movements_are_read_page_by_page_and_for_a_time(market: SqlTransaction) -> None:
    code = wallet(BUYER)
    market.post([deposit(transfer_id=new_uuid(), account_id=BUYER, amount_micro=5, event_ms=6)], 7)
    held = hold(transfer_id=new_uuid(), account_id=BUYER, job_id="job_1", amount_micro=8, event_ms=9)
    market.post([held], 9)
    whole = market.statement(code, 0, 9, 0, 100)
    assert [(leg.account_seq, leg.delta_micro) for leg in whole.legs] == [(1, 10_000_000), (2, 5), (3, -8)]
    assert (whole.opening_micro, whole.closing_micro, whole.next_after_seq) == (0, 9_999_997, None)
    first = market.statement(code, 0, 1, 0, 100)
    assert (first.closing_micro, first.next_after_seq) == (10_000_000, first.legs[0].seq)
    rest = market.statement(code, first.legs[0].seq, 9, 0, 100)
    assert (rest.opening_micro, rest.legs) == (10_000_000, whole.legs[1:])
    then = market.statement(code, 0, 9, 7, 9)
    assert (then.opening_micro, then.closing_micro) == (10_000_000, 10_000_005)
    with pytest.raises(AccountNotFoundError):
        market.statement(wallet("acct_nobody"), 0, 9, 0, 100)


DAY_MS = 86_400_000


def day_job(name: str, day: int, **changes: object) -> Job:
    return job(first_id("job", day * DAY_MS) + name, submitted_ms=day * DAY_MS, **changes)


def test_what_jobs_of_a_time_have_cost_or_may_cost(market: SqlTransaction) -> None:
    live = day_job("a", 3, charged_micro=5)
    over = day_job("b", 4, state=JobState.SUCCEEDED, ended_ms=9 * DAY_MS, charged_micro=700)
    market.insert_jobs([live, over, day_job("c", 9)])
    market.insert_attempt(attempt(job_id=over.id))
    market.insert_lines("att_1", [(line(), str(new_uuid()))])
    market.insert_credit("att_1", Credit(number=1, earning_micro=95, fee_micro=5), str(new_uuid()), "lost")
    assert market.spent([BUYER, SELLER], 3 * DAY_MS, 9 * DAY_MS) == {BUYER: live.spec.budget_micro + 600}
    assert market.spent([BUYER], 20 * DAY_MS, 21 * DAY_MS) == {}
    assert market.jobs_taken_in(BUYER, 3 * DAY_MS, 9 * DAY_MS, "", 9) == [over, live]
    assert market.jobs_taken_in(BUYER, 3 * DAY_MS, 9 * DAY_MS, over.id, 9) == [live]
    assert market.jobs_taken_in(BUYER, 3 * DAY_MS, 9 * DAY_MS, "", 1) == [over]
    assert market.jobs_taken_in(SELLER, 0, 9 * DAY_MS, "", 9) == []


def test_what_a_seller_sold_newest_first(market: SqlTransaction) -> None:
    sold = [
        attempt(
            id=first_id("att", day * DAY_MS),
            job_id=f"job_{day}",
            gpus=(gpu(f"GPU-{day}"),),
            meter=meter(
                attempt_id=first_id("att", day * DAY_MS),
                gpu_uuids=frozenset({f"GPU-{day}"}),
                assigned=replace(at(0), wall_ms=day * DAY_MS),
            ),
        )
        for day in (3, 4, 5)
    ]
    market.insert_jobs([job(one.job_id) for one in sold])
    assert market.insert_attempts(sold) == []
    ids = [one.id for one in sold]

    def found(since: int, until: int, before_id: str = "", limit: int = 9, host_id: str = "") -> list[str]:
        page = market.attempts_sold(SELLER, since * DAY_MS, until * DAY_MS, before_id, limit, host_id)
        return [one.id for one in page]

    assert found(3, 6) == found(0, 9, host_id="host_1") == ids[::-1]
    assert found(4, 5) == [ids[1]]
    assert (found(3, 6, before_id=ids[2]), found(3, 6, limit=1)) == ([ids[1], ids[0]], [ids[2]])
    assert found(3, 6, host_id="host_9") == []


def test_a_cap_is_set_replaced_and_lifted(market: SqlTransaction) -> None:
    assert market.caps([BUYER, SELLER]) == {}
    for cap in (SpendingCap(month_micro=5), SpendingCap(month_micro=7, alert_percent=50)):
        market.save_cap(BUYER, cap)
        assert market.caps([BUYER, SELLER]) == {BUYER: cap}
    market.save_cap(BUYER, None)
    assert market.caps([BUYER]) == {}


def test_what_the_operator_gave_back_of_a_job(market: SqlTransaction) -> None:
    held = hold(transfer_id=hold_id("job_1"), account_id=BUYER, job_id="job_1", amount_micro=9, event_ms=2)
    back = adjustment(
        transfer_id=new_uuid(),
        corrects=held.id,
        debit=ADJUSTMENTS,
        credit=wallet(BUYER),
        amount_micro=4,
        event_ms=3,
        reason="the disk was slow",
        ref="job_1",
    )
    assert [outcome.status for outcome in market.post([held, back], 5)] == [Status.POSTED] * 2
    given = Refund(transfer_id=str(back.id), amount_micro=4, reason="the disk was slow", given_ms=5)
    assert market.refunds_of(["job_1", "job_9"]) == {"job_1": [given], "job_9": []}


def test_how_much_of_what_there_is(market: SqlTransaction) -> None:
    vitals = market.vitals()
    assert (dict(vitals.jobs), vitals.queued_since_ms) == ({JobState.QUEUED: 1}, 1)
    assert (vitals.transfers, vitals.transfers_sealed) == (1, 0)
    market.seal(7)
    assert market.vitals().transfers_sealed == 1


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


def test_output_is_weighed_by_account(market: SqlTransaction) -> None:
    assert market.output_bytes() == {}
    market.insert_attempt(attempt())
    market.append_log("att_1", [LogChunk(offset=0, stream=1, data=b"\0one\xff")], 1)
    market.append_log("att_1", [LogChunk(offset=5, stream=2, data=b"two")], 2)
    assert market.output_bytes() == {BUYER: 8}


def test_open_jobs_are_counted_by_account(market: SqlTransaction) -> None:
    assert market.open_jobs() == {BUYER: 1}
    (one,) = market.jobs(["job_1"]).values()
    assert market.save_job(one, replace(one, state=JobState.FAILED, ended_ms=9, cause=Cause.BUYER))
    assert market.open_jobs() == {}
