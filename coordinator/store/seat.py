"""One coordinator at a time keeps a market: the one that has the seat.

No promise hangs on it: every write is guarded, and the ledger has a lock of its own. But a coordinator also
remembers (who was heard, what it last told a host), and two would not know of each other's changes.

A file in the data folder says so on one machine, a lock of the database wherever else it is served from. Both
go with the process that holds them, however it ends.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

FILE_NAME = "coordinator.lock"
# Any number that nothing else uses.
_LOCK = 0x7573616E6365206E


class Seat:
    def __init__(self, data_dir: Path, database_url: str) -> None:
        self._path = data_dir / FILE_NAME
        self._url = make_url(database_url)
        self._file: IO[str] | None = None
        self._session: Connection | None = None

    def take(self) -> bool:
        """False: another coordinator has it."""
        return self._take_file() and self._take_lock()

    def is_kept(self) -> bool:
        """A lock of the database is lost when that is restarted; then it is taken again, if it can be."""
        try:
            if self._session is not None:
                self._session.execute(text("SELECT 1"))
        except DBAPIError:
            self._session = None
        try:
            return self._take_lock()
        except DBAPIError:
            # Nobody else can have it while there is no database.
            return True

    def leave(self) -> None:
        self._leave_lock()
        if self._file is not None:
            self._file.close()
            self._file = None

    def holder(self) -> str:
        """Who has it, for people."""
        try:
            number = self._path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            number = ""
        return f"process {number}" if number else "a process elsewhere"

    def is_taken_here(self) -> bool:
        """By another process of this machine; it is left as it is."""
        try:
            with self._path.open(encoding="ascii") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _take_file(self) -> bool:
        if self._file is not None:
            return True
        file = self._path.open("a+", encoding="ascii")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file
        return True

    def _take_lock(self) -> bool:
        if self._url.get_backend_name() != "postgresql" or self._session is not None:
            return True
        engine = create_engine(self._url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        session = engine.connect()
        if session.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}).scalar_one():
            self._session = session
            return True
        session.close()
        return False

    def _leave_lock(self) -> None:
        if self._session is not None:
            # Said, and not left to the end of the session, which the server may notice late.
            with suppress(DBAPIError):
                self._session.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            self._session.close()
            self._session = None
