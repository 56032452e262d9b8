"""What the databases themselves refuse, whoever asks and however."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger import audit, book, engine, seal
from ledger.chart import FEE, earnings, hold, wallet
from tests.support import ledger as make
from tests.support.ledger import BUYER, JOB, SELLER, post

# What a valid next transfer would be, from the wallet (1) to the hold (4), and how to spoil it.
COLUMNS = (
    "seq, id, kind, debit, debit_seq, debit_balance, credit, credit_seq, credit_balance, amount, fee,"
    " event_ms, posted_ms, fee_account, fee_seq, fee_balance, window_no, corrects, ref, reason"
)


@pytest.fixture
def ledger(ledger_engine):
    make.start(ledger_engine)
    post(
        ledger_engine,
        make.deposit(1, 1_000),
        make.hold(2, 500),
        make.capture(3, 100, 10, 5),
        make.hold(4, 99_999),
    )
    with ledger_engine.begin() as conn:
        seal.seal(conn, 10)
    return ledger_engine


def account(conn, code):
    return conn.execute(text("SELECT * FROM ledger_account WHERE code = :code"), {"code": code}).one()


def next_transfer(conn, **changes):
    """The row of a hold of 10 more, as the ledger would write it, but for the changes."""
    debit, credit, fee = account(conn, wallet(BUYER)), account(conn, hold(JOB)), account(conn, FEE)
    new_id = make.number_id(77)
    row = {
        "seq": 4, "id": new_id.bytes if conn.dialect.name == "sqlite" else new_id, "kind": 3,
        "debit": debit.id, "debit_seq": debit.seq + 1, "debit_balance": debit.balance_micro - 10,
        "credit": credit.id, "credit_seq": credit.seq + 1, "credit_balance": credit.balance_micro + 10,
        "amount": 10, "fee": 0, "event_ms": 1, "posted_ms": 11, "fee_account": None, "fee_seq": None,
        "fee_balance": None, "window_no": None, "corrects": None, "ref": JOB, "reason": "",
    }  # fmt: skip
    for name, value in changes.items():
        row[name] = value(row, fee) if callable(value) else value
    return row


def insert(conn, row, verb="INSERT"):
    values = ", ".join(f":{name.strip()}" for name in COLUMNS.split(","))
    conn.execute(text(f"{verb} INTO ledger_transfer ({COLUMNS}) VALUES ({values})"), row)


def test_a_row_as_the_ledger_would_write_it_is_taken_and_moves_the_balances(ledger):
    with ledger.begin() as conn:
        insert(conn, next_transfer(conn))
        assert make.heads(conn)[hold(JOB)] == (3, 410)
        assert make.heads(conn)[wallet(BUYER)] == (3, 490)


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 5}, {"seq": 3}, {"debit_balance": 491}, {"credit_balance": 411}, {"debit_seq": 4},
        {"credit_seq": 9}, {"amount": 11}, {"amount": 0}, {"amount": -10}, {"amount": 2**53},
        {"debit": 99}, {"credit": 99}, {"kind": 8}, {"kind": 6}, {"window_no": 1}, {"corrects": 3},
        {"fee": 1}, {"fee": 1, "credit_balance": 409},
        {"fee_account": lambda row, fee: fee.id, "fee_seq": 2, "fee_balance": 10},
        {"fee": 1, "credit_balance": 409, "fee_account": lambda _row, fee: fee.id, "fee_seq": 2,
         "fee_balance": 12},
        {"credit": lambda row, fee: row["debit"]},
        {"amount": 600, "debit_balance": -100, "credit_balance": 1_000},
        {"debit_balance": None}, {"debit_balance": 490.75}, {"ref": None},
    ],
)  # fmt: skip
def test_a_row_that_does_not_continue_the_books_is_refused(ledger, changes):
    with pytest.raises(DBAPIError), ledger.begin() as conn:
        insert(conn, next_transfer(conn, **changes))
    with engine.reading(ledger) as conn:
        assert list(audit.audit(conn)) == []
        assert book.transfer_count(conn) == 3


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_transfer SET amount = 1 WHERE seq = 1",
        "UPDATE ledger_transfer SET ref = 'x'",
        "DELETE FROM ledger_transfer WHERE seq = 3",
        "DELETE FROM ledger_transfer",
        "UPDATE ledger_refusal SET status = 'posted'",
        "DELETE FROM ledger_refusal",
        "UPDATE ledger_seal SET no = 9",
        "DELETE FROM ledger_seal",
        "DELETE FROM ledger_account WHERE seq = 0",
        "UPDATE ledger_account SET balance_micro = balance_micro + 1",
        "UPDATE ledger_account SET seq = seq + 1",
        "UPDATE ledger_account SET window_no = 0",
        "UPDATE ledger_account SET floor_micro = -5 WHERE id = 1",
        "UPDATE ledger_account SET floor_micro = NULL",
        "UPDATE ledger_account SET code = 'wallet:thief' WHERE code = 'wallet:acct_buyer'",
        "UPDATE ledger_account SET payer = NULL",
        "UPDATE ledger_account SET asset = 'gold'",
        "UPDATE ledger_account SET closed_ms = 5 WHERE code = 'wallet:acct_buyer'",
        "INSERT INTO ledger_account (id, code, kind, asset, floor_micro, balance_micro, opened_ms)"
        " VALUES (50, 'wallet:z', 6, 'credit', 0, 5, 1)",
        "INSERT INTO ledger_account (id, code, kind, asset, floor_micro, seq, opened_ms)"
        " VALUES (50, 'wallet:z', 6, 'credit', 0, 5, 1)",
        "INSERT INTO ledger_account (id, code, kind, asset, floor_micro, opened_ms)"
        " VALUES (50, 'wallet:acct_buyer', 6, 'credit', 0, 1)",
    ],
)
def test_history_and_balances_are_not_edited_by_hand(ledger, statement):
    with ledger.begin() as conn:
        before = make.heads(conn)
    with pytest.raises(DBAPIError), ledger.begin() as conn:
        conn.execute(text(statement))
    with engine.reading(ledger) as conn:
        assert make.heads(conn) == before
        assert list(audit.audit(conn)) == []


def test_a_closed_account_stays_closed(ledger):
    with ledger.begin() as conn:
        conn.execute(text("UPDATE ledger_account SET closed_ms = 5 WHERE code = 'wallet:acct_seller'"))
    for value in ("NULL", "6"):
        with pytest.raises(DBAPIError), ledger.begin() as conn:
            conn.execute(
                text(f"UPDATE ledger_account SET closed_ms = {value} WHERE code = 'wallet:acct_seller'")
            )


@pytest.mark.parametrize("table", ["ledger_transfer", "ledger_account", "ledger_refusal", "ledger_seal"])
def test_postgresql_refuses_to_truncate(postgres_ledger, table):
    with pytest.raises(DBAPIError, match="TRUNCATE"), postgres_ledger.begin() as conn:
        conn.execute(text(f"TRUNCATE {table} CASCADE"))


def test_sqlite_refuses_to_replace(sqlite_ledger):
    make.start(sqlite_ledger)
    post(
        sqlite_ledger,
        make.deposit(1, 1_000),
        make.hold(2, 500),
        make.capture(3, 100, 10, 5),
        make.hold(4, 9_999),
    )
    first = make.number_id(1).bytes
    replacing = [
        "INSERT OR REPLACE INTO ledger_account (id, code, kind, asset, floor_micro, opened_ms)"
        " VALUES (1, 'wallet:acct_buyer', 6, 'credit', 0, 1)",
        "INSERT OR REPLACE INTO ledger_refusal SELECT id, 'posted', digest, after_seq, 1 FROM ledger_refusal",
        "UPDATE OR REPLACE ledger_account SET id = 1 WHERE id = 2",
    ]
    for pragma in ("ON", "OFF"):
        with sqlite_ledger.begin() as conn:
            conn.exec_driver_sql(f"PRAGMA recursive_triggers = {pragma}")
        for statement in replacing:
            with pytest.raises(DBAPIError, match="ledger"), sqlite_ledger.begin() as conn:
                conn.exec_driver_sql(statement)
        with pytest.raises(DBAPIError, match="ledger"), sqlite_ledger.begin() as conn:
            insert(conn, next_transfer(conn, id=first), verb="INSERT OR REPLACE")


def test_postgresql_takes_several_transfers_in_one_statement_only_if_all_are_right(postgres_ledger):
    make.start(postgres_ledger)
    post(postgres_ledger, make.deposit(1, 1_000), make.hold(2, 500), make.capture(3, 100, 10, 5))
    two = (
        f"INSERT INTO ledger_transfer ({COLUMNS}) SELECT seq + 3 + n, gen_random_uuid(), 3, debit,"
        " debit_seq + n, debit_balance - 10 * n + :off * (n - 1), credit, credit_seq + 1 + n,"
        " 400 + 10 * n, 10, 0, 1, 11, NULL, NULL, NULL, NULL, NULL, ref, ''"
        " FROM ledger_transfer, generate_series(1, 2) AS n WHERE seq = 2"
    ).replace("seq + 3 + n,", "1 + seq + n,", 1)
    with pytest.raises(DBAPIError, match="continued"), postgres_ledger.begin() as conn:
        conn.execute(text(two), {"off": 1})
    with postgres_ledger.begin() as conn:
        conn.execute(text(two), {"off": 0})
        assert make.heads(conn)[hold(JOB)] == (4, 420)
        assert make.heads(conn)[earnings(SELLER)] == (1, 90)


@pytest.mark.parametrize(
    ("numbers", "balances", "taken"),
    [
        # As they are; the order of the rows in the statement is of no account.
        ((3, 4, 5), (490, 480, 470), True),
        ((5, 4, 3), (470, 480, 490), True),
        # A number twice and one left out, a gap, and balances that jump and come back: the first, the last,
        # the count and the sums are right.
        ((3, 3, 5), (490, 480, 470), False),
        ((3, 5, 6), (490, 480, 470), False),
        ((3, 4, 5), (490, 485, 470), False),
        ((3, 5, 4), (490, 480, 470), False),
    ],
)
def test_every_step_of_a_chain_within_one_statement_is_held(postgres_ledger, numbers, balances, taken):
    make.start(postgres_ledger)
    post(postgres_ledger, make.deposit(1, 1_000), make.hold(2, 500))
    with postgres_ledger.begin() as conn:
        debit, credit = account(conn, wallet(BUYER)), account(conn, hold(JOB))
    rows = ", ".join(
        f"({3 + step}, gen_random_uuid(), 3, {debit.id}, {numbers[step]}, {balances[step]}, {credit.id},"
        f" {2 + step}, {510 + 10 * step}, 10, 0, 1, 11, NULL, NULL, NULL, NULL, NULL, '{JOB}', '')"
        for step in range(3)
    )
    insertion = text(f"INSERT INTO ledger_transfer ({COLUMNS}) VALUES {rows}")
    if taken:
        with postgres_ledger.begin() as conn:
            conn.execute(insertion)
            assert make.heads(conn)[wallet(BUYER)] == (5, 470)
        return
    with pytest.raises(DBAPIError, match="continued"), postgres_ledger.begin() as conn:
        conn.execute(insertion)


def test_a_dip_below_the_floor_inside_one_statement_is_refused(postgres_ledger):
    """A CHECK sees only the end of it."""
    make.start(postgres_ledger)
    post(postgres_ledger, make.deposit(1, 1_000), make.hold(2, 1_000))
    with postgres_ledger.begin() as conn:
        w, h = account(conn, wallet(BUYER)).id, account(conn, hold(JOB)).id
    rest = "10, 0, 1, 11, NULL, NULL, NULL, NULL, NULL, 'job_1', ''"
    rows = (
        f"INSERT INTO ledger_transfer ({COLUMNS}) VALUES"
        f" (3, gen_random_uuid(), 3, {w}, 3, -10, {h}, 2, 1010, {rest}),"
        f" (4, gen_random_uuid(), 5, {h}, 3, 1000, {w}, 4, 0, {rest})"
    )
    with pytest.raises(DBAPIError, match="continued"), postgres_ledger.begin() as conn:
        conn.execute(text(rows))
