"""The audit: silent over a true ledger, and never silent over one that was altered."""

from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger import audit, book, engine, seal
from ledger.chart import ADJUSTMENTS, SUSPENSE, wallet
from ledger.entries import withdraw
from tests.support import ledger as make
from tests.support.ledger import BUYER, SELLER, number_id, post


def unspoken(table, column, row, other):
    """What no invariant and no seal speaks of: when a seal was made, and that an empty account was closed."""
    if table == "ledger_seal":
        return column == "sealed_ms"
    at_rest = table == "ledger_account" and row["balance_micro"] == 0
    return at_rest and column == "closed_ms" and row["closed_ms"] is None and (other >= 20 or row["seq"] == 0)


@pytest.fixture
def ledger(ledger_engine):
    """Every kind of transfer, refusals, a closed hold and a running one, sealed in two seals."""
    make.start(ledger_engine)
    post(
        ledger_engine, make.deposit(1, 1_000), make.hold(2, 300), make.capture(3, 100, 10, 5),
        make.hold(4, 99_999),
        make.refund(5, 3, 45, 5), now_ms=10,
    )  # fmt: skip
    with ledger_engine.begin() as conn:
        seal.seal(conn, 11)
    post(
        ledger_engine, make.capture(6, 50, 0, 7), make.release(7, 150), make.capture(8, 1),
        make.adjust(9, 7, wallet(BUYER), "earnings:acct_seller", 20), make.hold(10, 200, job="job_2"),
        make.capture(11, 20, 1, 1, job="job_2"), replace(make.deposit(12, 9), credit=SUSPENSE),
        make.adjust(13, 12, SUSPENSE, ADJUSTMENTS, 9),
        withdraw(transfer_id=number_id(14), account_id=SELLER, amount_micro=60, event_ms=14),
        now_ms=20,
    )  # fmt: skip
    with ledger_engine.begin() as conn:
        seal.seal(conn, 21)
    return ledger_engine


def lift_guards(conn):
    """What somebody with the database's own powers would do first."""
    if conn.dialect.name == "sqlite":
        for name in conn.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all():
            conn.execute(text(f"DROP TRIGGER {name}"))
        conn.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        return
    conn.execute(text("SET LOCAL session_replication_role = replica"))
    checks = (
        "SELECT conrelid::regclass::text, conname FROM pg_constraint"
        " WHERE contype = 'c' AND conname LIKE 'ledger%'"
    )
    for table, name in conn.execute(text(checks)).all():
        conn.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))


def altered(value, column):
    """Other values of the same type, near and far."""
    if isinstance(value, int):
        return [value + 1, value - 1, value + 5_000] + ([] if column in {"seq", "no", "id"} else [-value])
    if isinstance(value, str):
        return [value + "x", value[:-1] if value else "y"]
    if isinstance(value, bytes):
        return [bytes([value[0] ^ 1]) + value[1:]]
    if value is None:
        return [1, 2, 3, 1_000]
    return [number_id(4_242)]


def key_of(table):
    return {"ledger_transfer": "seq", "ledger_seal": "no"}.get(table, "id")


def test_a_true_ledger_has_no_violations_in_full_or_in_part(ledger):
    with engine.reading(ledger) as conn:
        for since_seq in range(book.transfer_count(conn) + 1):
            assert list(audit.audit(conn, since_seq=since_seq)) == []


@pytest.mark.parametrize("table", ["ledger_account", "ledger_transfer", "ledger_refusal", "ledger_seal"])
def test_no_value_can_be_altered_unseen(ledger, table):
    unseen = []
    with ledger.connect() as conn:
        outer = conn.begin()
        lift_guards(conn)
        for row in conn.execute(text(f"SELECT * FROM {table}")).mappings().all():
            key = key_of(table)
            for column, value in row.items():
                for other in altered(value, column):
                    if other == value or unspoken(table, column, row, other):
                        continue
                    savepoint = conn.begin_nested()
                    try:
                        update = f"UPDATE {table} SET {column} = :other WHERE {key} = :key"
                        conn.execute(text(update), {"other": other, "key": row[key]})
                        if not any(audit.audit(conn)):
                            unseen.append((row[key], column, value, other))
                    except DBAPIError:
                        # A unique key or the column's type refused it even so.
                        pass
                    savepoint.rollback()
        outer.rollback()
    assert unseen == []


@pytest.mark.parametrize("table", ["ledger_account", "ledger_transfer", "ledger_refusal", "ledger_seal"])
def test_no_row_can_be_deleted_unseen(ledger, table):
    key = key_of(table)
    with ledger.connect() as conn:
        outer = conn.begin()
        lift_guards(conn)
        # The newest seal alone can go unseen: it is what whoever kept its hash will miss.
        keys = conn.scalars(text(f"SELECT {key} FROM {table} ORDER BY {key}")).all()
        for value in keys[:-1] if table == "ledger_seal" else keys:
            savepoint = conn.begin_nested()
            conn.execute(text(f"DELETE FROM {table} WHERE {key} = :key"), {"key": value})
            assert any(audit.audit(conn)), (table, value)
            savepoint.rollback()
        outer.rollback()


def test_a_history_that_was_rewritten_and_sealed_anew_is_seen_by_who_kept_a_hash(ledger):
    with ledger.connect() as conn:
        outer = conn.begin()
        kept = tuple(
            seal.Seal(no=row.no, first_seq=row.first_seq, last_seq=row.last_seq, first_account=0,
                      last_account=row.last_account, hash=bytes(row.hash))
            for row in conn.execute(text("SELECT * FROM ledger_seal")).all()
        )  # fmt: skip
        assert list(audit.audit(conn, kept=kept)) == []
        lift_guards(conn)
        conn.execute(text("UPDATE ledger_transfer SET reason = 'never mind' WHERE kind = 6"))
        conn.execute(text("DELETE FROM ledger_seal"))
        assert seal.seal(conn, 30)
        assert list(audit.audit(conn)) == []
        found = [str(violation) for violation in audit.audit(conn, kept=kept)]
        assert found == [
            "seals: seal 1: is not the one that was kept",
            "seals: seal 2: was kept and is no longer there",
        ]
        outer.rollback()


def test_sealing_goes_on_where_it_ended_and_only_over_what_is_new(ledger):
    with ledger.begin() as conn:
        assert seal.seal(conn, 30) == []
    post(ledger, *[make.deposit(1_000 + number, 1) for number in range(2_500)], now_ms=40)
    with ledger.begin() as conn:
        made = seal.seal(conn, 41, seals_max=2)
        rest = seal.seal(conn, 42)
    assert [(one.no, one.first_seq, one.last_seq) for one in made + rest] == [
        (3, 13, 1_012), (4, 1_013, 2_012), (5, 2_013, 2_512),
    ]  # fmt: skip
    with engine.reading(ledger) as conn:
        assert list(audit.audit(conn)) == []
        assert list(audit.audit(conn, since_seq=2_000)) == []
