"""Reading transfers back: one query that both databases answer, and rows to values."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Row, Select, func, select

from ledger.entries import TRANSFER_BY_NUMBER, TRANSFERS, Outcome, Posted, Status, Transfer, TransferKind
from ledger.refusals import Original, Refused
from ledger.rules import Decision
from ledger.tables import ACCOUNT, REFUSAL, TRANSFER

T = TypeVar("T")

_DEBIT, _CREDIT, _FEE = (ACCOUNT.alias(role) for role in ("d", "c", "f"))
_ORIGINAL = TRANSFER.alias("o")
# In the order in which both stores write them.
TRANSFER_COLUMNS = (
    "seq, id, kind, debit, debit_seq, debit_balance, credit, credit_seq, credit_balance, amount, fee,"
    " event_ms, posted_ms, fee_account, fee_seq, fee_balance, window_no, corrects, ref, reason"
)
TRANSFER_WIDTH = TRANSFER_COLUMNS.count(",") + 1
# In the order of refusals.AccountRow.
ACCOUNT_COLUMNS = "id, code, kind, asset, floor_micro, balance_micro, seq, window_no, payer, closed_ms"
# How many values one IN list carries: far below what either database takes.
_IN_MAX = 500


def uuid_to_db(conn: Connection, value: UUID) -> UUID | bytes:
    return value.bytes if conn.dialect.name == "sqlite" else value


def uuid_from_db(value: UUID | bytes) -> UUID:
    return UUID(bytes=value) if isinstance(value, bytes) else value


def codes_of(transfers: Iterable[Transfer]) -> list[str]:
    """The accounts that a batch names, each once. What can be no code is left out, and so is not found."""
    codes: set[str] = set()
    for transfer in transfers:
        codes.add(transfer.debit)
        codes.add(transfer.credit)
        if transfer.fee_account is not None:
            codes.add(transfer.fee_account)
    return [code for code in codes if code.isprintable() and "," not in code]


def row_of(posted: Posted, decision: Decision, key: UUID | bytes) -> tuple[object, ...]:
    """In the order of TRANSFER_COLUMNS; `key` is the id as the database takes it."""
    transfer, outcome, accounts = posted.transfer, posted.outcome, decision.accounts
    fee, corrects = transfer.fee_account, transfer.corrects
    fee_leg = (
        (None, None, None) if fee is None else (accounts[fee].id, outcome.fee_seq, outcome.fee_balance_micro)
    )
    return (
        outcome.seq,
        key,
        TRANSFERS[transfer.kind].number,
        accounts[transfer.debit].id,
        outcome.debit_seq,
        outcome.debit_balance_micro,
        accounts[transfer.credit].id,
        outcome.credit_seq,
        outcome.credit_balance_micro,
        transfer.amount_micro,
        transfer.fee_micro,
        transfer.event_ms,
        outcome.posted_ms,
        *fee_leg,
        transfer.window_no,
        None if corrects is None else decision.originals[corrects].seq,
        transfer.ref,
        transfer.reason,
    )


def transfers_query() -> Select[Any]:
    """Whole transfers, with codes and ids instead of the numbers that the tables hold."""
    t = TRANSFER.c
    return (
        select(
            t.seq, t.id, t.kind, t.debit_seq, t.debit_balance, t.credit_seq, t.credit_balance, t.amount,
            t.fee, t.event_ms, t.posted_ms, t.fee_seq, t.fee_balance, t.window_no, t.ref, t.reason,
            _DEBIT.c.code.label("debit"), _CREDIT.c.code.label("credit"), _FEE.c.code.label("fee_account"),
            _ORIGINAL.c.id.label("corrects"),
        )
        .join(_DEBIT, _DEBIT.c.id == t.debit)
        .join(_CREDIT, _CREDIT.c.id == t.credit)
        .outerjoin(_FEE, _FEE.c.id == t.fee_account)
        .outerjoin(_ORIGINAL, _ORIGINAL.c.seq == t.corrects)
    )  # fmt: skip


def posted_of(row: Row[Any]) -> Posted:
    transfer = Transfer(
        id=uuid_from_db(row.id),
        kind=TRANSFER_BY_NUMBER[row.kind],
        debit=row.debit,
        credit=row.credit,
        amount_micro=row.amount,
        event_ms=row.event_ms,
        fee_account=row.fee_account,
        fee_micro=row.fee,
        ref=row.ref,
        window_no=row.window_no,
        corrects=None if row.corrects is None else uuid_from_db(row.corrects),
        reason=row.reason,
    )
    outcome = Outcome(
        id=transfer.id,
        status=Status.POSTED,
        seq=row.seq,
        posted_ms=row.posted_ms,
        debit_seq=row.debit_seq,
        debit_balance_micro=row.debit_balance,
        credit_seq=row.credit_seq,
        credit_balance_micro=row.credit_balance,
        fee_seq=row.fee_seq or 0,
        fee_balance_micro=row.fee_balance or 0,
    )
    return Posted(transfer=transfer, outcome=outcome)


def chunks(values: Sequence[T]) -> Iterable[Sequence[T]]:
    return (values[at : at + _IN_MAX] for at in range(0, len(values), _IN_MAX))


def known(conn: Connection, posted: Sequence[UUID], refused: Sequence[UUID]) -> dict[UUID, Posted | Refused]:
    """The answers already given to these ids."""
    answers: dict[UUID, Posted | Refused] = {}
    for part in chunks(posted):
        keys = [uuid_to_db(conn, value) for value in part]
        for row in conn.execute(transfers_query().where(TRANSFER.c.id.in_(keys))):
            found = posted_of(row)
            answers[found.transfer.id] = found
    for part in chunks(refused):
        keys = [uuid_to_db(conn, value) for value in part]
        for row in conn.execute(select(REFUSAL).where(REFUSAL.c.id.in_(keys))):
            value = uuid_from_db(row.id)
            answers[value] = Refused(
                id=value, status=Status(row.status), digest=bytes(row.digest), after_seq=row.after_seq
            )
    return answers


def originals(conn: Connection, corrected: Sequence[UUID]) -> dict[UUID, Original]:
    """The transfers that others name as corrected, with what has been corrected of each so far."""
    t = TRANSFER.c
    found: dict[int, tuple[UUID, Original]] = {}
    for part in chunks(corrected):
        keys = [uuid_to_db(conn, value) for value in part]
        query = (
            select(t.seq, t.id, t.kind, t.debit, t.credit, t.fee_account, t.amount, t.fee, _DEBIT.c.payer)
            .join(_DEBIT, _DEBIT.c.id == t.debit)
            .where(t.id.in_(keys))
        )
        for row in conn.execute(query):
            parties = frozenset(x for x in (row.debit, row.credit, row.fee_account) if x is not None)
            original = Original(
                seq=row.seq,
                kind=TRANSFER_BY_NUMBER[row.kind],
                parties=parties,
                payer=row.payer,
                debit=row.debit,
                credit=row.credit,
                amount_micro=row.amount,
                fee_micro=row.fee,
            )
            found[row.seq] = uuid_from_db(row.id), original
    refund = TRANSFERS[TransferKind.REFUND].number
    for seqs in chunks(list(found)):
        sums = (
            select(t.corrects, t.kind, func.sum(t.amount).label("amount"), func.sum(t.fee).label("fee"))
            .where(t.corrects.in_(seqs))
            .group_by(t.corrects, t.kind)
        )
        for total in conn.execute(sums):
            original = found[total.corrects][1]
            amount, fee = int(total.amount), int(total.fee)
            original.corrected_gross_micro += amount - fee
            if total.kind == refund:
                original.refunded_micro += amount
                original.refunded_fee_micro -= fee
    return dict(found.values())
