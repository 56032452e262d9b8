"""A batch on SQLite: statements through the driver, without a layer between."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import cast

from sqlalchemy import Connection

from ledger import records
from ledger.chart import CHART
from ledger.entries import Posted, Transfer
from ledger.refusals import Account, AccountRow
from ledger.rules import Decision, Snapshot

# Before a statement that triggers may abort, SQLite keeps a copy of each page that it changes. A row alone
# changes eight or so, most of them those of the row before; many rows in one statement keep each page once.
_ROWS_OF_INSERTS = (1_000, 250, 50, 10, 1)
_ROW = f"({','.join('?' * records.TRANSFER_WIDTH)})"
_INSERT_TRANSFERS = {
    rows: f"INSERT INTO ledger_transfer ({records.TRANSFER_COLUMNS}) VALUES {','.join([_ROW] * rows)}"  # noqa: S608
    for rows in _ROWS_OF_INSERTS
}
_INSERT_ACCOUNT = (
    "INSERT INTO ledger_account (id, code, kind, asset, floor_micro, payer, opened_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_REFUSE = "INSERT INTO ledger_refusal (id, status, digest, after_seq, refused_ms) VALUES (?, ?, ?, ?, ?)"
_TAIL = (
    "SELECT coalesce((SELECT max(seq) FROM ledger_transfer), 0),"
    " coalesce((SELECT posted_ms FROM ledger_transfer ORDER BY seq DESC LIMIT 1), 0),"
    " coalesce((SELECT max(id) FROM ledger_account), 0)"
)


def _in(statement: str, count: int) -> str:
    return f"{statement} IN ({','.join('?' * count)})"


class SqliteStore:
    # The database works in this very thread: nothing is won by giving it a part early.
    part_transfers = max(_ROWS_OF_INSERTS)

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._raw = cast("sqlite3.Connection", conn.connection.driver_connection)

    def lock(self) -> None:
        # BEGIN IMMEDIATE has taken it already. In a deferred transaction, writing nothing takes it, or fails
        # where another writer has been since this one began to read.
        self._raw.execute("UPDATE ledger_account SET closed_ms = closed_ms WHERE id < 0")

    def load(self, transfers: Sequence[Transfer]) -> Snapshot:
        self.lock()
        codes = records.codes_of(transfers)
        accounts: dict[str, AccountRow] = {}
        for part in records.chunks(codes):
            query = _in(f"SELECT {records.ACCOUNT_COLUMNS} FROM ledger_account WHERE code", len(part))  # noqa: S608
            for row in self._raw.execute(query, part):
                accounts[row[1]] = row
        ids = {transfer.id.bytes: transfer.id for transfer in transfers}
        posted, refused = (self._present(table, list(ids)) for table in ("ledger_transfer", "ledger_refusal"))
        known = {}
        if posted or refused:
            known = records.known(self._conn, [ids[key] for key in posted], [ids[key] for key in refused])
        corrected = [transfer.corrects for transfer in transfers if transfer.corrects is not None]
        last_seq, last_posted_ms, last_account_id = self._raw.execute(_TAIL).fetchone()
        return Snapshot(
            accounts=accounts,
            known=known,
            originals=records.originals(self._conn, corrected) if corrected else {},
            last_seq=last_seq,
            last_posted_ms=last_posted_ms,
            last_account_id=last_account_id,
        )

    def _present(self, table: str, ids: list[bytes]) -> list[bytes]:
        found: list[bytes] = []
        for part in records.chunks(ids):
            query = _in(f"SELECT id FROM {table} WHERE id", len(part))  # noqa: S608 - one of our two tables
            found.extend(row[0] for row in self._raw.execute(query, part))
        return found

    @contextmanager
    def writing(self, now_ms: int) -> Iterator[Callable[[Decision], None]]:
        yield lambda decision: self._write(decision, now_ms)

    def _write(self, decision: Decision, now_ms: int) -> None:
        if decision.opened:
            self.open(decision.opened, now_ms)
        if decision.posted:
            self._insert([_row(posted, decision) for posted in decision.posted])
        if decision.closed:
            self._raw.executemany(
                "UPDATE ledger_account SET closed_ms = ? WHERE id = ?",
                [(now_ms, account.id) for account in decision.closed],
            )
        if decision.refused:
            self._raw.executemany(
                _REFUSE,
                [(r.id.bytes, r.status, r.digest, r.after_seq, now_ms) for r in decision.refused.values()],
            )

    def _insert(self, rows: Sequence[tuple[object, ...]]) -> None:
        at = 0
        for count, statement in _INSERT_TRANSFERS.items():
            while len(rows) - at >= count:
                self._raw.execute(statement, tuple(chain.from_iterable(rows[at : at + count])))
                at += count

    def open(self, accounts: Sequence[Account], now_ms: int) -> None:
        rows = [
            (a.id, a.code, CHART[a.kind].number, a.asset, a.floor_micro, a.payer, now_ms) for a in accounts
        ]
        self._raw.executemany(_INSERT_ACCOUNT, rows)


def _row(posted: Posted, decision: Decision) -> tuple[object, ...]:
    return records.row_of(posted, decision, posted.transfer.id.bytes)
