"""Posting inside the caller's own transaction: load, decide, write.

The ledger has one head. Whoever posts takes it first and keeps it until the transaction ends, so transfers
are numbered in the order in which they commit, and no two writers can deadlock over accounts.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection, func, select

from ledger.chart import parse_code
from ledger.entries import Outcome, Transfer
from ledger.postgres import PostgresStore
from ledger.records import chunks
from ledger.refusals import Account
from ledger.rules import Batch, Decision, Snapshot, in_parts
from ledger.sqlite import SqliteStore
from ledger.tables import ACCOUNT

# One batch holds the head for tens of milliseconds; a longer one would make the others wait.
BATCH_TRANSFERS_MAX = 10_000


class Store(Protocol):
    """The one set-based read and write of a batch, on one kind of database."""

    # How much is decided before it is written.
    part_transfers: int

    def lock(self) -> None:
        """Take the ledger's head until the transaction ends."""
        ...

    def load(self, transfers: Sequence[Transfer]) -> Snapshot:
        """Take the head, then read what these transfers name."""
        ...

    def writing(self, now_ms: int) -> AbstractContextManager[Callable[[Decision], None]]:
        """What takes the decisions of one batch, part by part; all of them are written when it ends."""
        ...

    def open(self, accounts: Sequence[Account], now_ms: int) -> None: ...


class BatchError(ValueError):
    """A batch that this ledger does not take as it stands; the message says why."""


def store_of(conn: Connection) -> Store:
    if not conn.in_transaction():
        raise BatchError("post inside a transaction of your own: with engine.begin() as conn")
    return SqliteStore(conn) if conn.dialect.name == "sqlite" else PostgresStore(conn)


def lock(conn: Connection) -> None:
    """Take the ledger's head now: balances read after this stay true until the transaction ends."""
    store_of(conn).lock()


def post(conn: Connection, transfers: Sequence[Transfer], now_ms: int) -> list[Outcome]:
    """Answer each transfer, in order, and write what they change; durable when the caller commits.

    A refusal is an answer, kept for ever under its id like any other; it undoes nothing else of the batch but
    its linked chain. An exception means that nothing is known of any of them: roll back, and send the same
    batch again if you like, for the ids make that safe.
    """
    if len(transfers) > BATCH_TRANSFERS_MAX:
        raise BatchError(f"{len(transfers)} transfers in one batch: the most is {BATCH_TRANSFERS_MAX}")
    store = store_of(conn)
    if not transfers:
        return []
    snapshot = store.load(transfers)
    # A clock that was set back does not take the ledger's time back.
    now_ms = max(now_ms, snapshot.last_posted_ms)
    batch = Batch(snapshot, now_ms)
    outcomes: list[Outcome] = []
    with store.writing(now_ms) as write:
        for part in in_parts(transfers, store.part_transfers):
            decision = batch.decide(part)
            write(decision)
            outcomes += decision.outcomes
    return outcomes


def open_accounts(conn: Connection, codes: Iterable[str], now_ms: int) -> None:
    """Make sure that these accounts exist. A code that the chart does not know raises chart.CodeError.

    Wallets and earnings are opened so; a hold opens when it is filled, and the others by themselves.
    """
    wanted = {text: parse_code(text) for text in codes}
    store = store_of(conn)
    store.lock()
    for part in chunks(list(wanted)):
        for row in conn.execute(select(ACCOUNT.c.code).where(ACCOUNT.c.code.in_(part))):
            del wanted[row.code]
    last_id = conn.scalar(select(func.coalesce(func.max(ACCOUNT.c.id), 0))) or 0
    accounts = [
        Account(
            id=last_id + number,
            code=text,
            kind=code.kind,
            owner=code.owner,
            asset=code.asset,
            floor_micro=code.floor_micro,
        )
        for number, (text, code) in enumerate(wanted.items(), start=1)
    ]
    if accounts:
        store.open(accounts, now_ms)


def close_account(conn: Connection, code: str, now_ms: int) -> bool:
    """Close an empty account for good; False where it holds credits, is closed already or never was."""
    store_of(conn).lock()
    empty_and_open = (ACCOUNT.c.code == code, ACCOUNT.c.balance_micro == 0, ACCOUNT.c.closed_ms.is_(None))
    return conn.execute(ACCOUNT.update().where(*empty_and_open).values(closed_ms=now_ms)).rowcount == 1
