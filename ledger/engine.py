"""Engines with the settings that the ledger relies on, for SQLite and PostgreSQL alike."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import StaticPool

_BUSY_MS = 10_000
# At most: for a connection that writes, and for one that only reads. A commit of another connection makes all
# that one has in memory worthless, so a reader gains little by a great cache, and would keep its memory.
_CACHE_KIB, _READER_CACHE_KIB = 64 * 1024, 4 * 1024
_CHECKPOINT_PAGES = 8_192  # of 4 KiB
_READS, _WRITES = "usance_reads_only", "usance_writes"


class DatabaseError(ValueError):
    """A database URL that this program cannot use; the message says which it can."""


def make_engine(url: str, *, durable: bool = True) -> Engine:
    """An engine whose transactions write: on SQLite each begins by taking the write lock.

    So two writers queue up instead of failing half way. Transactions that only read go through `reading`.
    """
    parsed = make_url(url)
    if parsed.drivername == "postgresql+psycopg":
        return create_engine(parsed, isolation_level="READ COMMITTED")
    if parsed.get_backend_name() != "sqlite":
        raise DatabaseError(
            f"{parsed.drivername} is not supported: use sqlite:///FILE or postgresql+psycopg://…"
        )
    in_memory = parsed.database in (None, "", ":memory:")
    engine = create_engine(parsed, **({"poolclass": StaticPool} if in_memory else {}))

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3.Connection, behind the pool
        # The driver would begin transactions by itself, late and deferred.
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout = {_BUSY_MS}",
            "journal_mode = WAL",
            f"synchronous = {'FULL' if durable else 'OFF'}",
            "foreign_keys = ON",
            "recursive_triggers = ON",
            # Transfers touch pages all over their indexes: 2 MB of cache, the default, would read them again
            # for each batch, and a checkpoint for every 4 MB would write each of them as often.
            f"cache_size = -{_READER_CACHE_KIB}",
            f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        raw = cast("sqlite3.Connection", connection.connection.driver_connection)
        reads = connection.get_execution_options().get(_READS, False)
        # What a writing statement may have to undo is kept in memory; in a file it cost more than that.
        # What a reader sorts may be larger than memory.
        raw.execute(f"PRAGMA temp_store = {'FILE' if reads else 'MEMORY'}")
        if not reads and not connection.info.get(_WRITES):
            raw.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            connection.info[_WRITES] = True
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent view for reading, which blocks no writer. Nothing is committed."""
    with engine.connect() as connection:
        options: dict[str, Any] = {_READS: True}
        if engine.dialect.name == "postgresql":
            options["isolation_level"] = "REPEATABLE READ"
        yield connection.execution_options(**options)
