"""Seals: a hash chain over the history, made off the hot path.

Each seal covers the next transfers in order, the accounts opened and the refusals given among them, and
carries the hash of the seal before it. Whoever kept the hash of any seal can tell whether anything up to it
was altered since. What is hashed is text, a line for each record, written by the database itself and the same
on each, so that anybody can recompute it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, insert, select, text

from ledger.tables import ACCOUNT, SEAL, TRANSFER
from ledger.triggers import SEAL_LOCK

SEAL_TRANSFERS_MAX = 1_000
GENESIS = bytes(32)

# How each database writes an id as 32 hexadecimal digits, and 16 bytes likewise.
_HEX = {
    "sqlite": {"id": "lower(hex(id))", "digest": "lower(hex(digest))"},
    "postgresql": {"id": "encode(uuid_send(id), 'hex')", "digest": "encode(digest, 'hex')"},
}
# Fields are joined by bars. The text of a transfer is last and its first part has its length before it, so
# that no two records make the same line.
_TRANSFER_FIELDS = (
    "seq", "@id", "kind", "debit", "debit_seq", "debit_balance", "credit", "credit_seq", "credit_balance",
    "amount", "fee", "coalesce(fee_account, 0)", "coalesce(fee_seq, 0)", "coalesce(fee_balance, 0)",
    "coalesce(window_no, 0)", "coalesce(corrects, 0)", "event_ms", "posted_ms", "length(ref)", "ref",
    "reason",
)  # fmt: skip
_ACCOUNT_FIELDS = (
    "id", "code", "kind", "asset", "coalesce(CAST(floor_micro AS text), 'none')", "coalesce(payer, 0)",
    "opened_ms",
)  # fmt: skip
_REFUSAL_FIELDS = ("after_seq", "@id", "status", "@digest", "refused_ms")


@dataclass(frozen=True, kw_only=True, slots=True)
class Seal:
    no: int
    first_seq: int
    last_seq: int
    first_account: int
    last_account: int
    hash: bytes


def seal(conn: Connection, now_ms: int, *, seals_max: int = 10) -> list[Seal]:
    """Seal what was posted since the last seal, at most `seals_max` thousand transfers; call it until it
    returns nothing. Holds up no posting on PostgreSQL; on SQLite, as long as the transaction lasts.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(text(f"SELECT pg_advisory_xact_lock({SEAL_LOCK})"))
    last = conn.execute(select(SEAL).order_by(SEAL.c.no.desc()).limit(1)).first()
    no, last_seq, last_account = (last.no, last.last_seq, last.last_account) if last else (0, 0, 0)
    chain = bytes(last.hash) if last else GENESIS
    newest = conn.scalar(select(func.max(TRANSFER.c.seq))) or 0
    newest_account = conn.scalar(select(func.max(ACCOUNT.c.id))) or 0
    made: list[Seal] = []
    while last_seq < newest and len(made) < seals_max:
        unsealed = Seal(
            no=no + 1,
            first_seq=last_seq + 1,
            last_seq=min(last_seq + SEAL_TRANSFERS_MAX, newest),
            first_account=last_account + 1,
            last_account=newest_account,
            hash=chain,
        )
        chain = hash_of(conn, unsealed)
        no, last_seq, last_account = unsealed.no, unsealed.last_seq, newest_account
        made.append(replace(unsealed, hash=chain))
        values = {
            "no": no,
            "first_seq": unsealed.first_seq,
            "last_seq": last_seq,
            "last_account": last_account,
        }
        conn.execute(insert(SEAL).values(**values, hash=chain, sealed_ms=now_ms))
    return made


def sealed_to(conn: Connection) -> int:
    """The last transfer that a seal covers; 0 before the first."""
    return conn.scalar(select(func.max(SEAL.c.last_seq))) or 0


def hash_of(conn: Connection, unsealed: Seal) -> bytes:
    """The hash of a seal that still carries the hash of the one before."""
    digest = hashlib.sha256(unsealed.hash)
    for query, span in _queries(conn, unsealed):
        if conn.dialect.name == "postgresql":
            # One text for a seal: rows on their way cost more than their hash.
            whole = f"SELECT string_agg(line || chr(10), '') FROM ({query}) AS lines"  # noqa: S608
            digest.update((conn.scalar(text(whole), span) or "").encode())
        else:
            for line in conn.scalars(text(query), span):
                digest.update(line.encode() + b"\n")
    return digest.digest()


def lines(conn: Connection, covered: Seal) -> Iterator[str]:
    """The text that a seal covers, line by line: accounts by number, then transfers, then refusals."""
    for query, span in _queries(conn, covered):
        yield from conn.scalars(text(query), span)


def _queries(conn: Connection, covered: Seal) -> Iterator[tuple[str, dict[str, int]]]:
    spans = (
        ("account", _ACCOUNT_FIELDS, "id", covered.first_account, covered.last_account),
        ("transfer", _TRANSFER_FIELDS, "seq", covered.first_seq, covered.last_seq),
        # One that is refused after the last of these may still get company; it belongs to the next seal.
        ("refusal", _REFUSAL_FIELDS, "after_seq", covered.first_seq - 1, covered.last_seq - 1),
    )
    hexed = _HEX[conn.dialect.name]
    for kind, fields, key, first, last in spans:
        parts = [f"'{kind}'", *(hexed[name[1:]] if name.startswith("@") else name for name in fields)]
        # PostgreSQL has a function that joins in one go; SQLite of 2022 has not.
        line = " || '|' || ".join(parts)
        if conn.dialect.name == "postgresql":
            line = f"concat_ws('|', {', '.join(parts)})"
        within = f"WHERE {key} BETWEEN :first AND :last ORDER BY {key}, id"
        yield f"SELECT {line} AS line FROM ledger_{kind} {within}", {"first": first, "last": last}  # noqa: S608
