"""Copies of a SQLite database: made while it is in use, and looked at."""

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DatabaseError

from coordinator.keeping.manifest import DamagedError
from coordinator.services import audit
from coordinator.store import migrate, tables
from coordinator.store.transaction import SqlTransaction
from ledger.engine import make_engine, reading
from ledger.seal import seal, sealed_to

# 32 MB: often enough to show how far it is.
PAGES_A_STEP = 8_192
_COUNTED = ("account", "host", "job", "attempt", "bill_line", "event", "log_chunk")
# (pages done, pages in all)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a database holds."""

    revision: str
    known_ms: int
    restorations: int
    transfers: int
    sealed_to: int
    seal: str
    head: str
    violations: list[str]
    counts: Mapping[str, int]


def copy(source: Path, target: Path, progress: Progress) -> None:
    """As it is at one moment, whoever goes on writing. Nobody waits for it."""
    target.touch(mode=0o600, exist_ok=False)
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(target)) as made:
        # One view for the whole of it: else each commit of another process would have it begin anew.
        live.execute("BEGIN")
        live.execute("SELECT count(*) FROM sqlite_master").fetchone()
        live.backup(
            made, pages=PAGES_A_STEP, progress=lambda _, left, whole: progress(whole - left, whole), sleep=0
        )
    sync(target)


def sync(path: Path) -> None:
    """On the disk when it returns; a folder's names likewise."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def check(path: Path) -> None:
    """Raises DamagedError where SQLite itself finds it damaged."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            said = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
            said += [
                f"{row[0]} refers to a missing {row[2]}"
                for row in connection.execute("PRAGMA foreign_key_check")
            ]
        except sqlite3.DatabaseError as error:
            said = [str(error)]
    if said != ["ok"]:
        raise DamagedError(f"the database is damaged: {'; '.join(said[:5])}")


def look_at(path: Path) -> Found:
    """Everything is read, and every invariant is checked; nothing is changed."""
    engine = make_engine(f"sqlite:///{path}")
    try:
        revision = migrate.current(engine)
        if revision is None:
            raise DamagedError("it is no database of a market")
        return _look(engine, revision)
    except DatabaseError as error:
        raise DamagedError(f"the database can't be read: {error.orig}") from None
    finally:
        engine.dispose()


def _look(engine: Engine, revision: str) -> Found:
    with reading(engine) as connection:
        tx = SqlTransaction(connection)
        violations, transfers = audit.run(tx)
        standing = tx.standing()
        counts = {
            name: connection.scalar(select(func.count()).select_from(tables.metadata.tables[name])) or 0
            for name in _COUNTED
        }
        covered, restorations = sealed_to(connection), len(tx.restorations())
    return Found(
        revision=revision,
        known_ms=standing.known_ms,
        restorations=restorations,
        transfers=transfers,
        sealed_to=covered,
        seal=standing.seal_hash.hex(),
        head=_head(engine) or standing.seal_hash.hex(),
        violations=list(violations),
        counts=counts,
    )


def _head(engine: Engine) -> str:
    """The hash of the seal that would come next, if it took in all there is."""
    with engine.connect() as connection, connection.begin() as undone:
        last = ""
        while made := seal(connection, 0):
            last = made[-1].hash.hex()
        undone.rollback()
    return last
