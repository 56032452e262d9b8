"""What the ledger promises its callers, on SQLite and on PostgreSQL alike."""

from dataclasses import replace

import pytest

from ledger import book, chart, engine
from ledger.chart import ADJUSTMENTS, FEE, ISSUANCE, PAYOUTS, SUSPENSE, earnings, hold, wallet
from ledger.entries import Leg, Status, TransferKind, withdraw
from tests.support import ledger as make
from tests.support.ledger import BUYER, JOB, SELLER, MemoryLedger, number_id, post, statuses


@pytest.fixture
def ledger(ledger_engine):
    make.start(ledger_engine)
    return ledger_engine


def balances(ledger, *codes):
    with engine.reading(ledger) as conn:
        found = book.balances(conn, codes)
    return [found.get(code) for code in codes]


def test_a_job_is_paid_and_every_credit_is_somewhere(ledger):
    batch = [
        make.deposit(1, 1_000), make.hold(2, 500), make.capture(3, 100, 10, 1), make.capture(4, 200, 20, 2),
        make.refund(5, 4, 90, 10), make.release(6, 200),
        withdraw(transfer_id=number_id(7), account_id=SELLER, amount_micro=150, event_ms=7),
    ]  # fmt: skip
    assert statuses(post(ledger, *batch)) == ["posted"] * 7
    codes = (ISSUANCE, PAYOUTS, FEE, wallet(BUYER), hold(JOB), earnings(SELLER))
    assert balances(ledger, *codes) == [-1_000, 150, 20, 800, 0, 30]
    with engine.reading(ledger) as conn:
        trial = book.trial_balance(conn)
        assert [line.total_micro for line in trial] == [0]
        assert sum(micro for _, micro in book.account_balances(conn)) == 0
        assert book.transfer_count(conn) == 7
        bill = book.bill(conn, JOB)
        paged = book.bill(conn, JOB, limit=2)
        assert paged.next_after_seq is not None
        rest = book.bill(conn, JOB, limit=100, after_seq=paged.next_after_seq)
    assert [posted.transfer for posted in bill.transfers] == batch[1:6]
    assert (bill.held_micro, bill.captured_micro, bill.fee_micro) == (500, 300, 30)
    assert (bill.released_micro, bill.refunded_micro, bill.remaining_micro) == (200, 100, 0)
    assert bill.next_after_seq is None
    assert paged.transfers + rest.transfers == bill.transfers
    assert replace(paged, transfers=(), next_after_seq=None) == replace(bill, transfers=())


def test_the_whole_is_answered_as_the_pure_function_does(ledger):
    memory = MemoryLedger(make.accounts_of(BUYER, SELLER))
    batches = [
        [
            make.deposit(1, 1_000),
            make.hold(2, 2_000),
            make.hold(3, 500),
            make.hold(3, 500),
            make.hold(3, 501),
        ],
        [make.capture(4, 100, 10, 5), make.capture(5, 50, 0, 5), make.refund(6, 4, 91), make.capture(7, 1)],
        [make.capture(8, 5, linked=True), make.hold(9, 9_999), make.deposit(10, 5, who="nobody")],
        [
            make.refund(11, 4, 90, 10),
            make.adjust(12, 1, wallet(BUYER), ADJUSTMENTS, 3),
            make.release(13, 399),
        ],
        [make.capture(14, 1), make.deposit(1, 1_000), make.hold(2, 2_000), make.hold(2, 1)],
    ]
    for number, batch in enumerate(batches):
        assert post(ledger, *batch, now_ms=10 + number) == memory.post(batch, 10 + number)


def test_opening_is_repeatable_and_closing_is_for_good(ledger):
    make.start(ledger)
    with ledger.begin() as conn:
        assert book.balances(conn, [wallet(BUYER), wallet("nobody")]) == {wallet(BUYER): 0}
        with pytest.raises(book.AccountNotFoundError):
            book.balance(conn, wallet("nobody"))
        with pytest.raises(chart.CodeError):
            book.open_accounts(conn, ["purse:x"], 1)
    post(ledger, make.deposit(1, 5))
    with ledger.begin() as conn:
        assert not book.close_account(conn, wallet(BUYER), 20)
        assert book.close_account(conn, earnings(SELLER), 20)
        assert not book.close_account(conn, earnings(SELLER), 21)
    outcomes = post(ledger, make.hold(2, 5), make.capture(3, 5))
    assert statuses(outcomes) == ["posted", "account_closed"]


def test_nothing_is_kept_of_a_transaction_that_is_rolled_back(ledger):
    with ledger.connect() as conn:
        transaction = conn.begin()
        book.post(conn, [make.deposit(1, 5), make.hold(2, 9)], 10)
        transaction.rollback()
    assert balances(ledger, wallet(BUYER), ISSUANCE) == [0, None]
    assert statuses(post(ledger, make.deposit(1, 7), make.hold(2, 7))) == ["posted", "posted"]


def test_a_batch_is_part_of_the_callers_own_transaction(ledger):
    with ledger.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE job (id text)")
        conn.exec_driver_sql("INSERT INTO job VALUES ('job_1')")
        book.post(conn, [make.deposit(1, 10), make.hold(2, 5)], 10)
    with ledger.connect() as conn, conn.begin() as transaction:
        conn.exec_driver_sql("INSERT INTO job VALUES ('job_2')")
        book.post(conn, [make.hold(3, 5, job="job_2")], 10)
        transaction.rollback()
    with ledger.begin() as conn:
        assert conn.exec_driver_sql("SELECT id FROM job").scalars().all() == ["job_1"]
        assert book.balances(conn, [hold("job_1"), hold("job_2")]) == {hold("job_1"): 5}


def test_posting_outside_a_transaction_or_too_much_at_once_is_refused(ledger):
    with ledger.connect() as conn, pytest.raises(book.BatchError, match="transaction"):
        book.post(conn, [make.deposit(1, 5)], 10)
    with ledger.begin() as conn:
        assert book.post(conn, [], 10) == []
        with pytest.raises(book.BatchError, match="the most is"):
            book.post(conn, [make.deposit(1, 5)] * (book.BATCH_TRANSFERS_MAX + 1), 10)


def test_balances_and_statements_are_true_of_any_past_moment(ledger):
    for number in range(1, 21):
        post(ledger, make.deposit(number, 10), now_ms=100 * number)
    with engine.reading(ledger) as conn:
        code = wallet(BUYER)
        assert [book.balance(conn, code, ms) for ms in (0, 99, 100, 101, 1_999, 2_000, 10**12)] == [
            0, 0, 10, 10, 190, 200, 200,
        ]  # fmt: skip
        assert book.balance(conn, ISSUANCE, 550) == -50
        assert book.balance(conn, earnings(SELLER), 550) == 0
        first = book.statement(conn, code, until_ms=500)
        second = book.statement(conn, code, since_ms=501, until_ms=1_500)
        third = book.statement(conn, code, since_ms=1_501)
        nothing = book.statement(conn, code, since_ms=99_999)
    assert (first.opening_micro, first.closing_micro, len(first.legs)) == (0, 50, 5)
    assert (second.opening_micro, second.closing_micro, len(second.legs)) == (50, 150, 10)
    assert (third.opening_micro, third.closing_micro, len(third.legs)) == (150, 200, 5)
    assert (nothing.opening_micro, nothing.closing_micro, nothing.legs) == (200, 200, ())


@pytest.mark.parametrize("code", [wallet(BUYER), hold(JOB), earnings(SELLER), FEE, ISSUANCE])
def test_pages_of_a_statement_join_without_a_gap(ledger, code):
    batch = [make.deposit(1, 10_000), make.hold(2, 5_000)]
    batch += [make.capture(number, 10 + number, number % 3, number) for number in range(3, 40)]
    batch += [make.refund(100 + number, number, 5) for number in range(3, 40, 4)]
    assert set(statuses(post(ledger, *batch))) == {"posted"}
    legs: list[Leg] = []
    closing = 0
    after: int | None = 0
    with engine.reading(ledger) as conn:
        while after is not None:
            page = book.statement(conn, code, after_seq=after, limit=7)
            assert page.opening_micro == closing
            assert page.opening_micro + sum(leg.delta_micro for leg in page.legs) == page.closing_micro
            legs, closing, after = [*legs, *page.legs], page.closing_micro, page.next_after_seq
        assert closing == book.balance(conn, code)
    assert [leg.account_seq for leg in legs] == list(range(1, len(legs) + 1))
    assert len({leg.seq for leg in legs}) == len(legs)


def test_a_leg_says_what_happened(ledger):
    post(ledger, make.deposit(1, 100), make.hold(2, 50), make.capture(3, 20, 2, 1), now_ms=77)
    with engine.reading(ledger) as conn:
        leg = book.statement(conn, FEE).legs[0]
    assert (leg.seq, leg.kind, leg.account_seq, leg.delta_micro, leg.balance_micro) == (
        3, TransferKind.CAPTURE, 1, 2, 2,
    )  # fmt: skip
    assert (leg.transfer_id, leg.ref, leg.event_ms, leg.posted_ms) == (number_id(3), JOB, 3, 77)


def test_money_of_an_unknown_owner_waits_in_suspense(ledger):
    unknown = replace(make.deposit(1, 100), credit=SUSPENSE)
    outcomes = post(ledger, unknown, make.adjust(2, 1, SUSPENSE, wallet(BUYER), 100))
    assert statuses(outcomes) == ["posted", "posted"]
    assert balances(ledger, SUSPENSE, wallet(BUYER)) == [0, 100]


def test_assets_are_kept_apart(ledger):
    gold = wallet(BUYER, "gold")
    with ledger.begin() as conn:
        book.open_accounts(conn, [gold], 1)
    in_gold = replace(make.deposit(1, 7), debit="issuance@gold", credit=gold)
    mixed = replace(make.deposit(2, 7), credit=gold)
    assert statuses(post(ledger, in_gold, mixed, make.deposit(3, 5))) == ["posted", "assets_differ", "posted"]
    with engine.reading(ledger) as conn:
        trial = {line.asset: (line.total_micro, dict(line.by_kind)[chart.AccountKind.WALLET])
                 for line in book.trial_balance(conn)}  # fmt: skip
    assert trial == {"credit": (0, 5), "gold": (0, 7)}


def test_a_large_batch_of_every_kind_is_one_write(ledger):
    post(ledger, make.deposit(1, 10**9))
    holds = [make.hold(10 + n, 1_000, job=f"job_{n}") for n in range(1_000)]
    assert set(statuses(post(ledger, *holds))) == {"posted"}
    captures = [make.capture(5_000 + n, 10, n % 2, 1, job=f"job_{n}") for n in range(1_000)]
    outcomes = post(ledger, *captures, *captures[:500])
    assert statuses(outcomes) == ["posted"] * 1_000 + ["exists"] * 500
    assert [outcome.seq for outcome in outcomes[:1_000]] == list(range(1_002, 2_002))
    releases = [make.release(9_000 + n, 990, job=f"job_{n}") for n in range(1_000)]
    assert set(statuses(post(ledger, *releases))) == {"posted"}
    assert balances(ledger, wallet(BUYER), FEE) == [10**9 - 10_000, 500]
    refused = [make.capture(20_000 + n, 1, job=f"job_{n}") for n in range(1_000)]
    assert post(ledger, *refused)[0].status is Status.ACCOUNT_CLOSED
    assert set(statuses(post(ledger, *refused))) == {"account_closed"}
