"""Short ways to say what a test of the ledger wants posted, and a ledger that lives in memory only."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from sqlalchemy import Connection, Engine

from ledger import book, chart, entries
from ledger.entries import Outcome, Posted, Transfer
from ledger.refusals import Account, AccountRow, Original, Refused
from ledger.rules import Decision, Snapshot, decide, original_of

BUYER, SELLER, JOB = "acct_buyer", "acct_seller", "job_1"
CREDIT = 1_000_000


def number_id(number: int) -> UUID:
    """The id that a test calls by a number."""
    return UUID(int=(number << 64) + 1)


def deposit(number: int, amount: int, who: str = BUYER) -> Transfer:
    return entries.deposit(
        transfer_id=number_id(number), account_id=who, amount_micro=amount, event_ms=number
    )


def hold(number: int, amount: int, job: str = JOB, who: str = BUYER, *, linked: bool = False) -> Transfer:
    return entries.hold(
        transfer_id=number_id(number), account_id=who, job_id=job, amount_micro=amount, event_ms=number,
        linked=linked,
    )  # fmt: skip


def capture(
    number: int, amount: int, fee: int = 0, window: int | None = None, job: str = JOB, who: str = SELLER,
    *, linked: bool = False,
) -> Transfer:  # fmt: skip
    return entries.capture(
        transfer_id=number_id(number), job_id=job, seller_id=who, amount_micro=amount, fee_micro=fee,
        event_ms=number, window_no=window, linked=linked,
    )  # fmt: skip


def release(number: int, amount: int, job: str = JOB, who: str = BUYER) -> Transfer:
    return entries.release(
        transfer_id=number_id(number), account_id=who, job_id=job, amount_micro=amount, event_ms=number
    )


def refund(number: int, corrects: int, seller_micro: int, fee_micro: int = 0, job: str = JOB) -> Transfer:
    return entries.refund(
        transfer_id=number_id(number), corrects=number_id(corrects), job_id=job, seller_id=SELLER,
        account_id=BUYER, seller_micro=seller_micro, fee_micro=fee_micro, event_ms=number, reason="it broke",
    )  # fmt: skip


def adjust(number: int, corrects: int, debit: str, credit: str, amount: int) -> Transfer:
    return entries.adjustment(
        transfer_id=number_id(number), corrects=number_id(corrects), debit=debit, credit=credit,
        amount_micro=amount, event_ms=number, reason="a mistake",
    )  # fmt: skip


def accounts_of(*names: str) -> list[str]:
    return [code for name in names for code in (chart.wallet(name), chart.earnings(name))]


def start(engine: Engine, names: Iterable[str] = (BUYER, SELLER)) -> None:
    with engine.begin() as conn:
        book.open_accounts(conn, accounts_of(*names), 1)


def post(engine: Engine, *transfers: Transfer, now_ms: int = 10) -> list[Outcome]:
    with engine.begin() as conn:
        return book.post(conn, transfers, now_ms)


def statuses(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.status.value for outcome in outcomes]


class MemoryLedger:
    """The pure function with nothing round it but dictionaries: what any database must agree with."""

    def __init__(self, codes: Iterable[str]) -> None:
        self.accounts: dict[str, Account] = {}
        self.known: dict[UUID, Posted | Refused] = {}
        self.originals: dict[UUID, Original] = {}
        self.posted: list[Posted] = []
        for number, text in enumerate(codes, start=1):
            code = chart.parse_code(text)
            self.accounts[text] = Account(
                id=number, code=text, kind=code.kind, owner=code.owner, asset=code.asset,
                floor_micro=code.floor_micro,
            )  # fmt: skip

    def post(self, transfers: Sequence[Transfer], now_ms: int) -> list[Outcome]:
        return self.decide(transfers, now_ms).outcomes

    @property
    def last_posted_ms(self) -> int:
        return self.posted[-1].outcome.posted_ms if self.posted else 0

    def snapshot(self) -> Snapshot:
        return Snapshot(
            accounts={code: _row_of(account) for code, account in self.accounts.items()},
            known=self.known,
            originals=self.originals,
            last_seq=len(self.posted),
            last_posted_ms=self.last_posted_ms,
            last_account_id=len(self.accounts),
        )

    def decide(self, transfers: Sequence[Transfer], now_ms: int) -> Decision:
        decision = decide(self.snapshot(), transfers, max(now_ms, self.last_posted_ms))
        self.accounts = dict(decision.accounts)
        self.originals.update(decision.originals)
        self.known.update(decision.refused)
        for posted in decision.posted:
            self.posted.append(posted)
            transfer = posted.transfer
            self.known[transfer.id] = posted
            if transfer.id not in self.originals:
                self.originals[transfer.id] = original_of(
                    posted,
                    debit=self.accounts[transfer.debit],
                    credit=self.accounts[transfer.credit],
                    fee=self.accounts[transfer.fee_account] if transfer.fee_account else None,
                )
        return decision


def _row_of(account: Account) -> AccountRow:
    return (
        account.id, account.code, chart.CHART[account.kind].number, account.asset, account.floor_micro,
        account.balance_micro, account.seq, account.window_no, account.payer, 1 if account.closed else None,
    )  # fmt: skip


def heads(conn: Connection) -> dict[str, tuple[int, int]]:
    """Where each account stands: its sequence and its balance."""
    rows = conn.exec_driver_sql("SELECT code, seq, balance_micro FROM ledger_account")
    return {row.code: (row.seq, row.balance_micro) for row in rows}
