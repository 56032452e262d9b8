"""The books for other programs: CSV, JSON lines, and journals that Beancount and hledger check by themselves.

Every export is a stream of lines, read page by page, so that it is as long as the ledger and as small in
memory as a page. The journals assert balances: hledger's after every leg, Beancount's at the end of every
day. Their signs are those of bookkeeping programs: what the platform owes, such as a wallet, is negative.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from ledger.chart import ASSET, AccountKind, parse_code
from ledger.entries import Posted
from ledger.money import format_credits
from ledger.records import posted_of, transfers_query
from ledger.tables import TRANSFER

_PAGE_ROWS = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS = (
    "seq", "id", "kind", "debit", "credit", "amount", "fee_account", "fee", "ref", "window_no", "corrects",
    "reason", "event_time", "posted_time", "debit_seq", "debit_balance", "credit_seq", "credit_balance",
    "fee_seq", "fee_balance",
)  # fmt: skip
# Where each kind of account stands in the world of assets, liabilities and income.
_ROOTS = {
    AccountKind.ISSUANCE: "Assets",
    AccountKind.PAYOUTS: "Assets",
    AccountKind.ADJUSTMENTS: "Equity",
    AccountKind.SUSPENSE: "Liabilities",
    AccountKind.FEE: "Income",
    AccountKind.WALLET: "Liabilities",
    AccountKind.HOLD: "Liabilities",
    AccountKind.EARNINGS: "Liabilities",
}


def transfers(conn: Connection, *, after_seq: int = 0, last_seq: int | None = None) -> Iterator[Posted]:
    """Every transfer in order. Give it one consistent view: `ledger.engine.reading`."""
    while True:
        query = transfers_query().where(TRANSFER.c.seq > after_seq).order_by(TRANSFER.c.seq).limit(_PAGE_ROWS)
        if last_seq is not None:
            query = query.where(TRANSFER.c.seq <= last_seq)
        page = [posted_of(row) for row in conn.execute(query)]
        if not page:
            return
        yield from page
        after_seq = page[-1].outcome.seq


def csv_lines(posted: Iterable[Posted]) -> Iterator[str]:
    """A header, then a line for each transfer. Amounts are credits with six decimals."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_FIELDS)
    yield buffer.getvalue()
    for one in posted:
        buffer.seek(0)
        buffer.truncate()
        row = dict(zip(_FIELDS, _fields(one), strict=True))
        for free in ("ref", "reason"):
            # A spreadsheet would take such a text for a formula.
            text = row[free] or ""
            row[free] = f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
        writer.writerow(["" if value is None else value for value in row.values()])
        yield buffer.getvalue()


def json_lines(posted: Iterable[Posted]) -> Iterator[str]:
    """An object a line. Amounts are strings: no reader may round them."""
    for one in posted:
        yield json.dumps(dict(zip(_FIELDS, _fields(one), strict=True))) + "\n"


def _fields(one: Posted) -> tuple[str | None, ...]:
    transfer, outcome = one.transfer, one.outcome
    fee = transfer.fee_account is not None
    return (
        str(outcome.seq), str(transfer.id), transfer.kind.value, transfer.debit, transfer.credit,
        format_credits(transfer.amount_micro), transfer.fee_account, format_credits(transfer.fee_micro),
        transfer.ref, None if transfer.window_no is None else str(transfer.window_no),
        None if transfer.corrects is None else str(transfer.corrects), transfer.reason,
        _moment(transfer.event_ms).isoformat(timespec="milliseconds"),
        _moment(outcome.posted_ms).isoformat(timespec="milliseconds"),
        str(outcome.debit_seq), format_credits(outcome.debit_balance_micro),
        str(outcome.credit_seq), format_credits(outcome.credit_balance_micro),
        str(outcome.fee_seq) if fee else None, format_credits(outcome.fee_balance_micro) if fee else None,
    )  # fmt: skip


def hledger_lines(posted: Iterable[Posted]) -> Iterator[str]:
    """A journal for hledger, with a balance assertion on every posting. Check it with `hledger check`."""
    for one in posted:
        yield f"{_day(one)} ({one.outcome.seq}) {one.transfer.kind} ; id:{one.transfer.id}\n"
        for code, delta, balance in _legs(one):
            amount, after = (f"{format_credits(-micro)} {_commodity(code)}" for micro in (delta, balance))
            yield f"    {account_name(code)}  {amount} = {after}\n"
        yield "\n"


def beancount_lines(posted: Iterable[Posted]) -> Iterator[str]:
    """A journal for Beancount, with a balance assertion for every account that a day touched, at its end."""
    opened: set[str] = set()
    standing: dict[str, int] = {}
    day = ""
    for one in posted:
        if _day(one) != day:
            yield from _assertions(day, standing)
            standing, day = {}, _day(one)
        for code, _, balance in _legs(one):
            if code not in opened:
                opened.add(code)
                yield f"{day} open {account_name(code)} {_commodity(code)}\n"
            standing[code] = balance
        ref = one.transfer.ref.replace("\\", "/").replace('"', "'")
        yield f'{day} * "{one.transfer.kind}" "{ref}"\n'
        yield f'  id: "{one.transfer.id}"\n'
        for code, delta, _ in _legs(one):
            yield f"  {account_name(code)}  {format_credits(-delta)} {_commodity(code)}\n"
        yield "\n"
    yield from _assertions(day, standing)


def _assertions(day: str, standing: dict[str, int]) -> Iterator[str]:
    """Beancount asserts what stood at the beginning of a day: that of the next, then."""
    if not standing:
        return
    next_day = (datetime.fromisoformat(day) + timedelta(days=1)).date().isoformat()
    for code, balance in standing.items():
        # Without a tolerance of its own, Beancount would let a millionth pass.
        yield f"{next_day} balance {account_name(code)}  {format_credits(-balance)} ~ 0 {_commodity(code)}\n"
    yield "\n"


def account_name(code: str) -> str:
    """`wallet:acct_x` is `Liabilities:Wallet:N-acct-5Fx`: what these programs do not take is written as its
    number, so that two accounts never share a name.
    """
    parsed = parse_code(code)
    parts = [_ROOTS[parsed.kind], parsed.kind.value.capitalize()]
    if parsed.asset != ASSET:
        parts.append(parsed.asset.capitalize())
    if parsed.owner:
        safe = "".join(one if one.isascii() and one.isalnum() else f"-{ord(one):02X}" for one in parsed.owner)
        parts.append(f"N-{safe}")
    return ":".join(parts)


def _legs(one: Posted) -> Iterator[tuple[str, int, int]]:
    transfer, outcome = one.transfer, one.outcome
    yield transfer.debit, -transfer.amount_micro, outcome.debit_balance_micro
    yield transfer.credit, transfer.amount_micro - transfer.fee_micro, outcome.credit_balance_micro
    if transfer.fee_account is not None:
        yield transfer.fee_account, transfer.fee_micro, outcome.fee_balance_micro


def _commodity(code: str) -> str:
    """hledger wants quotes where a name has digits, and Beancount has none; so digits become letters."""
    name = parse_code(code).asset.upper()
    return "".join(f"N{'ABCDEFGHIJ'[int(one)]}" if one.isdigit() else one for one in name)


def _day(one: Posted) -> str:
    return _moment(one.outcome.posted_ms).date().isoformat()


def _moment(time_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=time_ms)
