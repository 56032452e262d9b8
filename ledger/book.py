"""The ledger as a caller sees it: post and read, on a connection and in a transaction of the caller's own."""

from collections.abc import Sequence

from sqlalchemy import Connection, and_, func, select, text

from ledger.chart import KIND_BY_NUMBER, AccountKind
from ledger.entries import (
    TRANSFER_BY_NUMBER,
    TRANSFERS,
    Bill,
    Leg,
    Posted,
    Statement,
    TransferKind,
    TrialBalance,
)
from ledger.posting import BATCH_TRANSFERS_MAX, BatchError, close_account, lock, open_accounts, post
from ledger.records import chunks, posted_of, transfers_query, uuid_from_db
from ledger.tables import ACCOUNT, TRANSFER

__all__ = [
    "BATCH_TRANSFERS_MAX", "AccountNotFoundError", "BatchError", "account_balances", "adjustments", "balance",
    "balances", "bill", "close_account", "lock", "open_accounts", "post", "seq_at", "statement",
    "transfer_count", "trial_balance",
]  # fmt: skip

PAGE_ROWS_MAX = 1_000

_CAPTURE = TRANSFERS[TransferKind.CAPTURE].number
# A literal, word for word as in the partial index: with a parameter no database would use it.
_NO_CAPTURE = text("ledger_transfer.kind <> 4")


class AccountNotFoundError(LookupError):
    """No account of this code was ever opened."""


def balance(conn: Connection, code: str, as_of_ms: int | None = None) -> int:
    """What the account holds, now or as it was when `as_of_ms` had passed. In micro-credits."""
    row = conn.execute(select(ACCOUNT.c.id, ACCOUNT.c.balance_micro).where(ACCOUNT.c.code == code)).first()
    if row is None:
        raise AccountNotFoundError(f"no account {code}")
    if as_of_ms is None:
        return int(row.balance_micro)
    return _balance_at(conn, row.id, seq_at(conn, as_of_ms))


def balances(conn: Connection, codes: Sequence[str]) -> dict[str, int]:
    """What these accounts hold now; those never opened are left out."""
    found: dict[str, int] = {}
    for part in chunks(list(codes)):
        query = select(ACCOUNT.c.code, ACCOUNT.c.balance_micro).where(ACCOUNT.c.code.in_(part))
        found.update((row.code, row.balance_micro) for row in conn.execute(query))
    return found


def account_balances(conn: Connection) -> list[tuple[str, int]]:
    """Every account that does not stand at zero. As long as the market is large: for an operator."""
    query = select(ACCOUNT.c.code, ACCOUNT.c.balance_micro).where(ACCOUNT.c.balance_micro != 0)
    return [(row.code, row.balance_micro) for row in conn.execute(query.order_by(ACCOUNT.c.code))]


def transfer_count(conn: Connection) -> int:
    """How many transfers there are: they are numbered from 1 without gaps."""
    return conn.scalar(select(func.max(TRANSFER.c.seq))) or 0


def seq_at(conn: Connection, as_of_ms: int) -> int:
    """The number of the last transfer posted no later than this; 0 before the first.

    Time never goes back along the numbers, so halving finds it without an index of times.
    """
    posted_ms = select(TRANSFER.c.posted_ms)
    low, high = 0, conn.scalar(select(func.max(TRANSFER.c.seq))) or 0
    while low < high:
        middle = (low + high + 1) // 2
        if (conn.scalar(posted_ms.where(TRANSFER.c.seq == middle)) or 0) <= as_of_ms:
            low = middle
        else:
            high = middle - 1
    return low


def statement(
    conn: Connection,
    code: str,
    *,
    after_seq: int = 0,
    limit: int = 100,
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> Statement:
    """A page of an account's movements, oldest first, of all time or posted in [since_ms, until_ms].

    The closing balance of a page is the opening balance of the next.
    """
    limit = max(1, min(limit, PAGE_ROWS_MAX))
    account = conn.scalar(select(ACCOUNT.c.id).where(ACCOUNT.c.code == code))
    if account is None:
        raise AccountNotFoundError(f"no account {code}")
    if since_ms is not None:
        after_seq = max(after_seq, seq_at(conn, since_ms - 1))
    last_seq = None if until_ms is None else seq_at(conn, until_ms)
    legs = _legs(conn, account, after_seq, last_seq, limit + 1)
    more, legs = len(legs) > limit, legs[:limit]
    if legs:
        opening, closing = legs[0].balance_micro - legs[0].delta_micro, legs[-1].balance_micro
    else:
        opening = closing = _balance_at(conn, account, after_seq)
    return Statement(
        code=code,
        opening_micro=opening,
        closing_micro=closing,
        legs=tuple(legs),
        next_after_seq=legs[-1].seq if more else None,
    )


def _legs(conn: Connection, account: int, after_seq: int, last_seq: int | None, limit: int) -> list[Leg]:
    """Each role is asked by its own index for one page, and the three are merged: no more is ever read."""
    t = TRANSFER.c
    roles = (
        (t.debit, t.debit_seq, -t.amount, t.debit_balance),
        (t.credit, t.credit_seq, t.amount - t.fee, t.credit_balance),
        (t.fee_account, t.fee_seq, t.fee, t.fee_balance),
    )
    legs: list[Leg] = []
    for column, account_seq, delta, balance_micro in roles:
        query = (
            select(
                t.seq, t.id, t.kind, t.ref, t.reason, t.event_ms, t.posted_ms,
                account_seq.label("account_seq"), delta.label("delta"), balance_micro.label("balance"),
            )
            .where(column == account, t.seq > after_seq)
            .order_by(column, t.seq)
            .limit(limit)
        )  # fmt: skip
        if last_seq is not None:
            query = query.where(t.seq <= last_seq)
        legs.extend(
            Leg(
                seq=row.seq,
                transfer_id=uuid_from_db(row.id),
                kind=TRANSFER_BY_NUMBER[row.kind],
                account_seq=row.account_seq,
                delta_micro=row.delta,
                balance_micro=row.balance,
                ref=row.ref,
                reason=row.reason,
                event_ms=row.event_ms,
                posted_ms=row.posted_ms,
            )
            for row in conn.execute(query)
        )
    return sorted(legs, key=lambda leg: leg.seq)[:limit]


def _balance_at(conn: Connection, account: int, seq: int) -> int:
    t = TRANSFER.c
    roles = (
        (t.debit, t.debit_balance),
        (t.credit, t.credit_balance),
        (t.fee_account, t.fee_balance),
    )
    latest_seq, latest = 0, 0
    for column, balance_micro in roles:
        query = (
            select(t.seq, balance_micro.label("balance"))
            .where(column == account, t.seq <= seq)
            .order_by(column.desc(), t.seq.desc())
            .limit(1)
        )
        row = conn.execute(query).first()
        if row is not None and row.seq > latest_seq:
            latest_seq, latest = row.seq, row.balance
    return latest


def bill(conn: Connection, ref: str, *, after_seq: int = 0, limit: int = PAGE_ROWS_MAX) -> Bill:
    """Everything that names this job, oldest first, and what it comes to in all, whatever the page."""
    limit = max(1, min(limit, PAGE_ROWS_MAX))
    t = TRANSFER.c
    by_ref = and_(_NO_CAPTURE, t.ref == ref)
    filled = select(t.credit).where(by_ref, t.kind == TRANSFERS[TransferKind.HOLD].number)
    holds = conn.execute(select(ACCOUNT.c.id, ACCOUNT.c.balance_micro).where(ACCOUNT.c.id.in_(filled))).all()
    by_hold = and_(t.kind == _CAPTURE, t.debit.in_([row.id for row in holds]))
    totals = dict.fromkeys(TransferKind, (0, 0))
    transfers: list[Posted] = []
    for mine in (by_hold, by_ref):
        sums = select(t.kind, func.sum(t.amount).label("amount"), func.sum(t.fee).label("fee"))
        for row in conn.execute(sums.where(mine).group_by(t.kind)):
            totals[TRANSFER_BY_NUMBER[row.kind]] = int(row.amount), int(row.fee)
        page = transfers_query().where(mine, t.seq > after_seq).order_by(t.seq).limit(limit + 1)
        transfers.extend(posted_of(row) for row in conn.execute(page))
    transfers.sort(key=lambda posted: posted.outcome.seq)
    more, transfers = len(transfers) > limit, transfers[:limit]
    captured, fee = totals[TransferKind.CAPTURE]
    refunded, refunded_fee = totals[TransferKind.REFUND]
    return Bill(
        ref=ref,
        held_micro=totals[TransferKind.HOLD][0],
        captured_micro=captured,
        fee_micro=fee,
        released_micro=totals[TransferKind.RELEASE][0],
        refunded_micro=refunded - refunded_fee,
        remaining_micro=sum(row.balance_micro for row in holds),
        transfers=tuple(transfers),
        next_after_seq=transfers[-1].outcome.seq if more else None,
    )


def adjustments(conn: Connection, refs: Sequence[str]) -> list[Posted]:
    """The adjustments that name one of these jobs, oldest first."""
    t = TRANSFER.c
    kind = TRANSFERS[TransferKind.ADJUSTMENT].number
    found: list[Posted] = []
    for part in chunks(list(refs)):
        query = transfers_query().where(_NO_CAPTURE, t.ref.in_(part), t.kind == kind)
        found.extend(posted_of(row) for row in conn.execute(query))
    return sorted(found, key=lambda posted: posted.outcome.seq)


def trial_balance(conn: Connection) -> list[TrialBalance]:
    """Per asset, the sum of balances of each kind of account. Every total is zero."""
    query = select(ACCOUNT.c.asset, ACCOUNT.c.kind, func.sum(ACCOUNT.c.balance_micro).label("total"))
    sums: dict[str, dict[AccountKind, int]] = {}
    for row in conn.execute(query.group_by(ACCOUNT.c.asset, ACCOUNT.c.kind).order_by(ACCOUNT.c.kind)):
        sums.setdefault(row.asset, {})[KIND_BY_NUMBER[row.kind]] = int(row.total)
    return [TrialBalance(asset=asset, by_kind=by_kind) for asset, by_kind in sorted(sums.items())]
