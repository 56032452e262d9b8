"""The ledger's tables, as SQLAlchemy Core, and the triggers that guard them on both databases."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from ledger.money import BALANCE_MICRO_MAX, TRANSFER_MICRO_MAX
from ledger.triggers import POSTGRES, SQLITE, VIEW

metadata = MetaData()

_INT8 = BigInteger().with_variant(Integer(), "sqlite")
_INT2 = SmallInteger().with_variant(Integer(), "sqlite")
_UUID = LargeBinary(16).with_variant(UUID(as_uuid=True), "postgresql")
_BYTES = LargeBinary()
# Codes are found by their bytes, which is quicker than by the order of a language.
_CODE = Text().with_variant(Text(collation="C"), "postgresql")


def _check(name: str, condition: str) -> CheckConstraint:
    return CheckConstraint(condition, name=name)


def _int8(name: str, **options: Any) -> Column[int]:  # noqa: ANN401 - Column's own keywords
    return Column(name, _INT8, nullable=False, **options)


ACCOUNT = Table(
    "ledger_account",
    metadata,
    Column("id", _INT8, primary_key=True, autoincrement=False),
    Column("code", _CODE, nullable=False, unique=True),
    Column("kind", _INT2, nullable=False),
    Column("asset", Text, nullable=False),
    Column("floor_micro", _INT8),
    _int8("balance_micro", server_default=text("0")),
    _int8("seq", server_default=text("0")),
    _int8("window_no", server_default=text("0")),
    Column("payer", _INT8),
    _int8("opened_ms"),
    Column("closed_ms", _INT8),
    _check("ledger_account_floor", "floor_micro IS NULL OR balance_micro >= floor_micro"),
    _check("ledger_account_range", f"balance_micro BETWEEN -{BALANCE_MICRO_MAX} AND {BALANCE_MICRO_MAX}"),
    _check("ledger_account_closed", "closed_ms IS NULL OR balance_micro = 0"),
    _check("ledger_account_kind", "kind BETWEEN 1 AND 8"),
    sqlite_strict=True,
    # Half-empty pages leave room for the new version of a balance beside the old one.
    postgresql_with={"fillfactor": 50},
)

TRANSFER = Table(
    "ledger_transfer",
    metadata,
    Column("seq", _INT8, primary_key=True, autoincrement=False),
    Column("id", _UUID, nullable=False, unique=True),
    Column("kind", _INT2, nullable=False),
    _int8("debit"),
    _int8("debit_seq"),
    _int8("debit_balance"),
    _int8("credit"),
    _int8("credit_seq"),
    _int8("credit_balance"),
    _int8("amount"),
    _int8("fee"),
    _int8("event_ms"),
    _int8("posted_ms"),
    Column("fee_account", _INT8),
    Column("fee_seq", _INT8),
    Column("fee_balance", _INT8),
    Column("window_no", _INT8),
    Column("corrects", _INT8),
    Column("ref", Text, nullable=False),
    Column("reason", Text, nullable=False),
    _check("ledger_transfer_kind", "kind BETWEEN 1 AND 7"),
    _check("ledger_transfer_amount", f"amount BETWEEN 1 AND {TRANSFER_MICRO_MAX}"),
    _check("ledger_transfer_fee", f"fee BETWEEN -{TRANSFER_MICRO_MAX} AND amount"),
    _check("ledger_transfer_distinct", "debit <> credit AND fee_account <> debit AND fee_account <> credit"),
    _check(
        "ledger_transfer_fee_leg",
        "(fee_account IS NULL) = (fee = 0) AND (fee_account IS NULL) = (fee_seq IS NULL)"
        " AND (fee_account IS NULL) = (fee_balance IS NULL)",
    ),
    _check("ledger_transfer_corrects", "(corrects IS NOT NULL) = (kind IN (6, 7)) AND corrects < seq"),
    _check("ledger_transfer_window", "window_no IS NULL OR kind = 4"),
    Index("ledger_transfer_debit", "debit", "seq"),
    Index("ledger_transfer_credit", "credit", "seq"),
    sqlite_strict=True,
)
Index(
    "ledger_transfer_fee",
    TRANSFER.c.fee_account,
    TRANSFER.c.seq,
    postgresql_where=TRANSFER.c.fee_account.is_not(None),
    sqlite_where=TRANSFER.c.fee_account.is_not(None),
)
Index(
    "ledger_transfer_corrected",
    TRANSFER.c.corrects,
    postgresql_where=TRANSFER.c.corrects.is_not(None),
    sqlite_where=TRANSFER.c.corrects.is_not(None),
)
# Captures are found through their hold, so the one kind that there is most of needs no entry here.
Index(
    "ledger_transfer_ref",
    TRANSFER.c.ref,
    TRANSFER.c.seq,
    postgresql_where=text("kind <> 4"),
    sqlite_where=text("kind <> 4"),
)

REFUSAL = Table(
    "ledger_refusal",
    metadata,
    Column("id", _UUID, primary_key=True),
    Column("status", Text, nullable=False),
    Column("digest", _BYTES, nullable=False),
    # How many transfers there were: where in the history it stands, and which seal covers it.
    _int8("after_seq"),
    _int8("refused_ms"),
    Index("ledger_refusal_after", "after_seq"),
    sqlite_strict=True,
)

SEAL = Table(
    "ledger_seal",
    metadata,
    Column("no", _INT8, primary_key=True, autoincrement=False),
    _int8("first_seq"),
    _int8("last_seq"),
    _int8("last_account"),
    Column("hash", _BYTES, nullable=False),
    _int8("sealed_ms"),
    _check("ledger_seal_range", "first_seq >= 1 AND last_seq >= first_seq"),
    sqlite_strict=True,
)


@event.listens_for(metadata, "after_create")
def _guard(target: MetaData, connection: Connection, **_: object) -> None:  # noqa: ARG001 - the event's shape
    connection.exec_driver_sql(VIEW)
    if connection.dialect.name == "sqlite":
        for statement in SQLITE:
            connection.exec_driver_sql(statement)
    else:
        for statement in POSTGRES:
            connection.exec_driver_sql(statement.replace("%", "%%"))


def create_all(engine: Engine) -> None:
    """Make an empty ledger. A program that keeps its data upgrades by migrations instead."""
    metadata.create_all(engine, checkfirst=False)
