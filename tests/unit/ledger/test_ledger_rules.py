"""What the pure function decides, refusal by refusal and in their order."""

from dataclasses import replace

import pytest

from ledger.chart import ADJUSTMENTS, FEE, ISSUANCE, SUSPENSE, earnings, hold, wallet
from ledger.entries import Outcome, Status, TransferKind
from ledger.money import BALANCE_MICRO_MAX, TRANSFER_MICRO_MAX
from tests.support import ledger as make
from tests.support.ledger import BUYER, JOB, SELLER, MemoryLedger, number_id, statuses

OTHER = "acct_other"
GOLD = wallet(BUYER, "gold")


@pytest.fixture
def ledger() -> MemoryLedger:
    """A buyer with 1,000, of which 500 are held for the job, and 100 captured, 10 of them fee."""
    book = MemoryLedger([*make.accounts_of(BUYER, SELLER, OTHER), GOLD, SUSPENSE, ADJUSTMENTS])
    outcomes = book.post([make.deposit(1, 1_000), make.hold(2, 500), make.capture(3, 100, 10, 5)], 10)
    assert statuses(outcomes) == ["posted"] * 3
    return book


CAPTURE = make.capture(50, 100, 10, 6)
REFUND = make.refund(51, 3, 45, 5)
ADJUST = make.adjust(52, 1, wallet(BUYER), ADJUSTMENTS, 5)
# Each line breaks one rule, and every rule that is looked for later as far as one transfer can.
REFUSALS = [
    (Status.EXISTS_WITH_DIFFERENT_CONTENT, replace(CAPTURE, id=number_id(3), amount_micro=0)),
    (Status.LINKED_CHAIN_OPEN, replace(CAPTURE, linked=True, amount_micro=0)),
    (Status.AMOUNT_OUT_OF_RANGE, replace(CAPTURE, amount_micro=0, fee_micro=-1)),
    (Status.AMOUNT_OUT_OF_RANGE, replace(CAPTURE, amount_micro=-5)),
    (Status.AMOUNT_OUT_OF_RANGE, replace(CAPTURE, amount_micro=TRANSFER_MICRO_MAX + 1)),
    (Status.FEE_OUT_OF_RANGE, replace(CAPTURE, fee_micro=101, window_no=0)),
    (Status.FEE_OUT_OF_RANGE, replace(CAPTURE, fee_micro=-1)),
    (Status.FEE_OUT_OF_RANGE, replace(CAPTURE, fee_micro=0)),
    (Status.FEE_OUT_OF_RANGE, replace(CAPTURE, fee_account=None)),
    (Status.FEE_OUT_OF_RANGE, replace(REFUND, fee_micro=5)),
    (Status.FEE_OUT_OF_RANGE, replace(REFUND, fee_micro=-TRANSFER_MICRO_MAX)),
    (Status.FEE_OUT_OF_RANGE, replace(make.hold(50, 5), fee_account=FEE, fee_micro=1)),
    (Status.WINDOW_OUT_OF_RANGE, replace(CAPTURE, window_no=0, event_ms=-1)),
    (Status.WINDOW_OUT_OF_RANGE, replace(make.hold(50, 5), window_no=1)),
    (Status.TIME_OUT_OF_RANGE, replace(CAPTURE, event_ms=-1, ref="x" * 129)),
    (Status.TEXT_UNFIT, replace(CAPTURE, ref="x" * 129, corrects=number_id(1))),
    (Status.TEXT_UNFIT, replace(ADJUST, reason="two\nlines")),
    (Status.TEXT_UNFIT, replace(ADJUST, reason="\x00")),
    (Status.TEXT_UNFIT, replace(ADJUST, reason="\ud800")),
    (Status.CORRECTED_NOT_NAMED, replace(REFUND, corrects=None, reason="")),
    (Status.CORRECTED_NOT_EXPECTED, replace(CAPTURE, corrects=number_id(1), credit=CAPTURE.debit)),
    (Status.REASON_MISSING, replace(ADJUST, reason=" ", credit=ADJUST.debit)),
    (Status.ACCOUNTS_NOT_DISTINCT, replace(CAPTURE, debit="nowhere", credit="nowhere")),
    (Status.ACCOUNT_NOT_FOUND, replace(CAPTURE, debit=hold("nowhere"))),
    (Status.ACCOUNT_NOT_FOUND, replace(CAPTURE, credit=earnings("nobody"), debit=wallet(BUYER))),
    (Status.ACCOUNT_NOT_FOUND, replace(CAPTURE, fee_account="fees")),
    (Status.ACCOUNT_NOT_FOUND, make.deposit(50, 5, who="nobody")),
    (Status.ACCOUNT_NOT_FOUND, replace(make.deposit(50, 5), credit="wallet:\x00,")),
    (Status.ACCOUNT_KIND_WRONG, replace(CAPTURE, debit=GOLD)),
    (Status.ACCOUNT_KIND_WRONG, replace(CAPTURE, fee_account=SUSPENSE)),
    (Status.ACCOUNT_KIND_WRONG, replace(ADJUST, debit=hold(JOB))),
    (Status.ASSETS_DIFFER, replace(make.deposit(50, 5), credit=GOLD)),
    (Status.ASSETS_DIFFER, replace(CAPTURE, fee_account="fee@gold", ref="other")),
    (Status.REF_DIFFERS, replace(CAPTURE, ref="job_2")),
    (Status.REF_DIFFERS, replace(make.release(50, 5, who=OTHER), ref="job_2")),
    (Status.PAYER_DIFFERS, make.release(50, 5, who=OTHER)),
    (Status.PAYER_DIFFERS, make.hold(50, 5, who=OTHER)),
    (Status.CORRECTED_NOT_FOUND, replace(REFUND, corrects=number_id(99))),
    (Status.CORRECTED_DIFFERS, replace(REFUND, corrects=number_id(2))),
    (Status.CORRECTED_DIFFERS, replace(REFUND, credit=wallet(OTHER))),
    (Status.CORRECTED_DIFFERS, replace(ADJUST, debit=wallet(OTHER))),
    (Status.CORRECTION_TOO_LARGE, replace(REFUND, amount_micro=91)),
    (Status.CORRECTION_TOO_LARGE, replace(REFUND, fee_micro=-11)),
    (Status.CORRECTION_TOO_LARGE, replace(ADJUST, amount_micro=1_001)),
    (Status.WINDOW_PASSED, replace(CAPTURE, window_no=5, amount_micro=10_000)),
    (Status.INSUFFICIENT_FUNDS, replace(CAPTURE, amount_micro=401)),
    (Status.INSUFFICIENT_FUNDS, make.hold(50, 501)),
]


@pytest.mark.parametrize(("status", "transfer"), REFUSALS)
def test_each_refusal_is_given_before_all_later_ones(ledger, status, transfer):
    before = {code: account.balance_micro for code, account in ledger.accounts.items()}
    assert ledger.post([transfer], 20)[0].status is status
    assert {code: account.balance_micro for code, account in ledger.accounts.items()} == before
    assert len(ledger.posted) == 3


def test_the_table_names_every_refusal_in_the_order_of_priority():
    order = list(Status)
    named = [order.index(status) for status, _ in REFUSALS]
    assert named == sorted(named)
    elsewhere = {
        Status.POSTED, Status.EXISTS, Status.ACCOUNT_CLOSED, Status.BALANCE_OUT_OF_RANGE,
        Status.LINKED_FAILED,
    }  # fmt: skip
    assert set(order) - {status for status, _ in REFUSALS} == elsewhere


@pytest.mark.parametrize(("status", "transfer"), REFUSALS)
def test_a_refused_id_gives_the_same_answer_for_ever(ledger, status, transfer):
    ledger.post([transfer], 20)
    ledger.post([make.deposit(60, 10_000), make.deposit(61, 5, who=OTHER)], 21)
    assert ledger.post([transfer], 22)[0].status is status
    good = replace(make.deposit(62, 5), id=transfer.id)
    assert ledger.post([good], 23)[0].status is Status.EXISTS_WITH_DIFFERENT_CONTENT


def test_an_emptied_hold_is_closed_for_good(ledger):
    outcomes = ledger.post(
        [make.release(4, 400), make.capture(5, 1), make.hold(6, 1), make.release(7, 1)], 20
    )
    assert statuses(outcomes) == ["posted", "account_closed", "account_closed", "account_closed"]
    assert ledger.accounts[hold(JOB)].closed


def test_a_release_of_a_part_leaves_the_hold_open(ledger):
    outcomes = ledger.post([make.release(4, 100), make.capture(5, 300), make.release(6, 1)], 20)
    assert statuses(outcomes) == ["posted", "posted", "insufficient_funds"]


def test_a_repeated_transfer_answers_where_it_stands_and_may_tell_its_time_anew(ledger):
    first = make.capture(4, 7, 1, 6)
    posted = ledger.post([first], 20)[0]
    again = ledger.post([replace(first, event_ms=999, linked=False)], 30)[0]
    assert again == posted._replace(status=Status.EXISTS)
    assert again.posted_ms == 20


def test_duplicates_inside_a_batch_post_once(ledger):
    one = make.capture(4, 7)
    outcomes = ledger.post([one, one, replace(one, amount_micro=8), one], 20)
    assert statuses(outcomes) == ["posted", "exists", "exists_with_different_content", "exists"]
    assert ledger.accounts[hold(JOB)].balance_micro == 393


def test_linked_transfers_post_together_or_not_at_all(ledger):
    good = [make.capture(4, 7, linked=True), make.hold(5, 20, linked=True), make.deposit(6, 1)]
    assert statuses(ledger.post(good, 20)) == ["posted"] * 3
    assert statuses(ledger.post(good, 21)) == ["exists"] * 3
    bad = [
        make.deposit(10, 3), make.hold(11, 30, job="job_2", linked=True), make.capture(12, 9, linked=True),
        make.hold(13, 9_999), make.deposit(14, 3),
    ]  # fmt: skip
    wanted = ["posted", "linked_failed", "linked_failed", "insufficient_funds", "posted"]
    assert statuses(ledger.post(bad, 22)) == wanted
    assert statuses(ledger.post(bad, 23)) == ["exists", *wanted[1:4], "exists"]
    assert hold("job_2") not in ledger.accounts
    assert [posted.outcome.seq for posted in ledger.posted] == list(range(1, len(ledger.posted) + 1))
    assert sum(account.balance_micro for account in ledger.accounts.values()) == 0


def test_a_failed_chain_gives_back_what_it_corrected(ledger):
    chain = [replace(make.refund(10, 3, 90, 10), linked=True), make.hold(11, 9_999)]
    assert statuses(ledger.post(chain, 20)) == ["linked_failed", "insufficient_funds"]
    assert statuses(ledger.post([make.refund(12, 3, 90, 10), make.refund(13, 3, 1)], 21)) == [
        "posted", "correction_too_large",
    ]  # fmt: skip


def test_a_chain_with_a_member_that_stands_already_does_not_post_the_rest(ledger):
    chain = [make.capture(3, 100, 10, 5, linked=True), make.deposit(11, 5)]
    assert statuses(ledger.post(chain, 20)) == ["exists", "linked_failed"]


def test_a_chain_that_names_an_id_twice_posts_nothing(ledger):
    one = make.deposit(10, 5)
    assert statuses(ledger.post([replace(one, linked=True), one], 20)) == ["linked_failed", "linked_failed"]


def test_what_a_batch_posts_it_can_correct(ledger):
    batch = [make.capture(10, 100, 10), make.refund(11, 10, 90, 10), make.refund(12, 10, 1)]
    assert statuses(ledger.post(batch, 20)) == ["posted", "posted", "correction_too_large"]


def test_refunds_and_adjustments_share_one_cap(ledger):
    batch = [
        make.refund(10, 3, 40, 4),
        make.adjust(11, 3, ADJUSTMENTS, wallet(BUYER), 50),
        make.adjust(12, 3, ADJUSTMENTS, wallet(BUYER), 7),
        make.adjust(13, 3, ADJUSTMENTS, wallet(BUYER), 6),
        make.adjust(14, 10, wallet(BUYER), earnings(SELLER), 44),
        make.adjust(15, 10, wallet(BUYER), earnings(SELLER), 1),
    ]
    assert statuses(ledger.post(batch, 20)) == [
        "posted", "posted", "correction_too_large", "posted", "posted", "correction_too_large",
    ]  # fmt: skip


def test_a_balance_never_leaves_its_range(ledger):
    rich = ledger.accounts[wallet(BUYER)]
    rich.balance_micro = BALANCE_MICRO_MAX - 1
    assert statuses(ledger.post([make.deposit(10, 2), make.deposit(11, 1)], 20)) == [
        "balance_out_of_range", "posted",
    ]  # fmt: skip
    ledger.accounts[ISSUANCE].balance_micro = -BALANCE_MICRO_MAX
    assert statuses(ledger.post([make.deposit(12, 1, who=OTHER)], 21)) == ["balance_out_of_range"]


def test_the_largest_transfer_posts_exactly():
    book = MemoryLedger(make.accounts_of(BUYER, SELLER))
    most = TRANSFER_MICRO_MAX
    batch = [
        make.deposit(1, most),
        make.hold(2, most),
        make.capture(3, most, most - 1),
        make.refund(4, 3, 1, most - 1),
    ]
    assert statuses(book.post(batch, 1)) == ["posted"] * 4
    assert book.accounts[wallet(BUYER)].balance_micro == most


@pytest.mark.parametrize("wrong", [1.0, True, "5"])
def test_an_amount_that_is_no_int_is_a_fault_of_the_caller(ledger, wrong):
    with pytest.raises(TypeError, match="whole micro-credits"):
        ledger.post([replace(CAPTURE, amount_micro=wrong)], 20)


def test_an_outcome_tells_both_balances_and_the_fee(ledger):
    assert ledger.post([CAPTURE], 20) == [
        Outcome(
            id=CAPTURE.id, status=Status.POSTED, seq=4, posted_ms=20, debit_seq=3, debit_balance_micro=300,
            credit_seq=2, credit_balance_micro=180, fee_seq=2, fee_balance_micro=20,
        )
    ]  # fmt: skip


def test_time_never_goes_back(ledger):
    assert ledger.post([CAPTURE], 3)[0].posted_ms == 10


def test_each_kind_names_its_accounts(ledger):
    assert {kind.value for kind in TransferKind} == {
        "deposit", "withdraw", "hold", "capture", "release", "refund", "adjustment",
    }  # fmt: skip
