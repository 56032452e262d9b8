"""A batch on PostgreSQL: one round trip to load, one or two to write, sets of rows in binary.

Statements go through psycopg directly. Lists travel as one comma-separated text, which the server splits:
codes hold no comma, and this is several times cheaper than adapting each element.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from sqlalchemy import Connection

from ledger import records
from ledger.chart import CHART
from ledger.entries import TRANSFERS, Posted, Transfer
from ledger.refusals import Account, AccountRow, Refused
from ledger.rules import Decision, Snapshot
from ledger.triggers import HEAD_LOCK

if TYPE_CHECKING:
    import psycopg

_LOCK = f"SELECT pg_advisory_xact_lock({HEAD_LOCK})"
_LOAD = "SELECT * FROM ledger_load(%s::text, %s::text)"
_OPEN = """
INSERT INTO ledger_account (id, code, kind, asset, floor_micro, payer, opened_ms)
SELECT id, code, kind, asset, floor_micro, payer, %s
  FROM unnest(string_to_array(%s::text, ',')::bigint[], string_to_array(%s::text, ','),
              string_to_array(%s::text, ',')::smallint[], string_to_array(%s::text, ','),
              string_to_array(%s::text, ',', '')::bigint[],
              string_to_array(%s::text, ',', '')::bigint[])
    AS t (id, code, kind, asset, floor_micro, payer)"""
_REFUSE = "INSERT INTO ledger_refusal (id, status, digest, after_seq, refused_ms) VALUES (%s, %s, %s, %s, %s)"
# What ledger_load calls its rows; the first is always the tail.
_ACCOUNT, _POSTED, _REFUSED = 1, 2, 3
_CLOSE = "UPDATE ledger_account SET closed_ms = %s WHERE id = ANY (string_to_array(%s::text, ',')::bigint[])"
_INSERT = (
    f"INSERT INTO ledger_transfer ({records.TRANSFER_COLUMNS})"  # noqa: S608 - a constant of ours
    f" VALUES ({', '.join(['%s'] * records.TRANSFER_WIDTH)})"
)
_COPY = f"COPY ledger_transfer ({records.TRANSFER_COLUMNS}) FROM STDIN (FORMAT BINARY)"
# Below this a plain INSERT costs less than opening a COPY.
_COPY_ROWS_MIN = 8

# The binary format of COPY: each field is its length, then its value; -1 is NULL.
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_COPY_TRAILER = struct.pack(">h", -1)
_FIXED = struct.Struct(">h iq i16s ih iq iq iq iq iq iq iq iq iq iq".replace(" ", ""))
_FEE_LEG = struct.Struct(">iqiqiq")
_INT8 = struct.Struct(">iq")
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)
_NO_FEE_LEG = _NULL * 3


class PostgresStore:
    # Enough to fill what is sent at once.
    part_transfers = 50

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._raw = cast("psycopg.Connection[Any]", conn.connection.driver_connection)

    def lock(self) -> None:
        self._raw.execute(_LOCK, prepare=True)

    def load(self, transfers: Sequence[Transfer]) -> Snapshot:
        codes = ",".join(records.codes_of(transfers))
        ids = ",".join([transfer.id.hex for transfer in transfers])
        rows = self._raw.cursor(binary=True).execute(_LOAD, (codes, ids), prepare=True).fetchall()
        tail = rows[0]
        accounts: dict[str, AccountRow] = {}
        posted: list[UUID] = []
        refused: list[UUID] = []
        for row in rows:
            if row[0] == _ACCOUNT:
                accounts[row[3]] = row[2:]
            elif row[0] == _POSTED:
                posted.append(row[1])
            elif row[0] == _REFUSED:
                refused.append(row[1])
        known = records.known(self._conn, posted, refused) if posted or refused else {}
        corrected = [transfer.corrects for transfer in transfers if transfer.corrects is not None]
        return Snapshot(
            accounts=accounts,
            known=known,
            originals=records.originals(self._conn, corrected) if corrected else {},
            last_seq=tail[8],
            last_posted_ms=tail[7] or 0,
            last_account_id=tail[2],
        )

    @contextmanager
    def writing(self, now_ms: int) -> Iterator[Callable[[Decision], None]]:
        writer = _Writer(self._raw, now_ms)
        # Where deciding fails, the COPY is broken off, and with it the transaction.
        with writer.copying:
            yield writer.add
            writer.finish()

    def open(self, accounts: Sequence[Account], now_ms: int) -> None:
        _open(self._raw, accounts, now_ms)


class _Writer:
    """A batch on its way: the server takes in one part while the next is decided.

    A COPY occupies the connection, so it ends where accounts have to be opened, and what closes accounts or
    keeps refusals comes after it.
    """

    def __init__(self, raw: "psycopg.Connection[Any]", now_ms: int) -> None:
        self.copying = ExitStack()
        self._raw, self._now_ms = raw, now_ms
        self._copy: psycopg.Copy | None = None
        self._closed: list[Account] = []
        self._refused: list[Refused] = []

    def add(self, decision: Decision) -> None:
        self._closed += decision.closed
        self._refused += decision.refused.values()
        if decision.opened:
            self._end_copy()
            _open(self._raw, decision.opened, self._now_ms)
        if self._copy is None and len(decision.posted) < _COPY_ROWS_MIN:
            self._insert(decision)
        else:
            rows = b"".join([_packed(posted, decision) for posted in decision.posted])
            if self._copy is None:
                self._copy = self._begin_copy()
                rows = _COPY_HEADER + rows
            self._copy.write(rows)

    def finish(self) -> None:
        self._end_copy()
        if self._closed:
            ids = ",".join(str(account.id) for account in self._closed)
            self._raw.execute(_CLOSE, (self._now_ms, ids), prepare=True)
        if self._refused:
            rows = [(r.id, r.status.value, r.digest, r.after_seq, self._now_ms) for r in self._refused]
            self._raw.cursor().executemany(_REFUSE, rows)

    def _insert(self, decision: Decision) -> None:
        rows = [records.row_of(posted, decision, posted.transfer.id) for posted in decision.posted]
        if len(rows) == 1:
            self._raw.execute(_INSERT, rows[0], prepare=True)
        elif rows:
            self._raw.cursor().executemany(_INSERT, rows)

    def _begin_copy(self) -> "psycopg.Copy":
        cursor = self.copying.enter_context(self._raw.cursor())
        return self.copying.enter_context(cursor.copy(_COPY))

    def _end_copy(self) -> None:
        if self._copy is not None:
            self._copy.write(_COPY_TRAILER)
            self.copying.close()
            self._copy = None


def _open(raw: "psycopg.Connection[Any]", accounts: Sequence[Account], now_ms: int) -> None:
    columns = (
        [account.id for account in accounts],
        [account.code for account in accounts],
        [CHART[account.kind].number for account in accounts],
        [account.asset for account in accounts],
        ["" if account.floor_micro is None else account.floor_micro for account in accounts],
        ["" if account.payer is None else account.payer for account in accounts],
    )
    lists = [",".join(map(str, column)) for column in columns]
    raw.execute(_OPEN, (now_ms, *lists), prepare=True)


def _packed(posted: Posted, decision: Decision) -> bytes:
    transfer, outcome, accounts = posted.transfer, posted.outcome, decision.accounts
    fixed = _FIXED.pack(
        records.TRANSFER_WIDTH,
        8, outcome.seq,
        16, transfer.id.bytes,
        2, TRANSFERS[transfer.kind].number,
        8, accounts[transfer.debit].id,
        8, outcome.debit_seq,
        8, outcome.debit_balance_micro,
        8, accounts[transfer.credit].id,
        8, outcome.credit_seq,
        8, outcome.credit_balance_micro,
        8, transfer.amount_micro,
        8, transfer.fee_micro,
        8, transfer.event_ms,
        8, outcome.posted_ms,
    )  # fmt: skip
    fee = transfer.fee_account
    fee_leg = _NO_FEE_LEG
    if fee is not None:
        fee_leg = _FEE_LEG.pack(8, accounts[fee].id, 8, outcome.fee_seq, 8, outcome.fee_balance_micro)
    window, corrects = transfer.window_no, transfer.corrects
    ref, reason = transfer.ref.encode(), transfer.reason.encode()
    return b"".join((
        fixed,
        fee_leg,
        _NULL if window is None else _INT8.pack(8, window),
        _NULL if corrects is None else _INT8.pack(8, decision.originals[corrects].seq),
        _LENGTH.pack(len(ref)), ref,
        _LENGTH.pack(len(reason)), reason,
    ))  # fmt: skip
