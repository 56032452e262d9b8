"""A real PostgreSQL of our own, on a unix socket only."""

import itertools
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.rig import leftovers
from tests.rig.parts import Folder, User, find_program, spawn, stop, sweep, wait_until

_KIND = "pg"
_HOW = "apt-get install postgresql"
_SUPERUSER = "usance"
# What PostgreSQL copies for a new database.
_EMPTY = "template1"

# What a crash of the machine would lose is of no interest to a test; what a crash of the server would lose is
# written all the same.
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_INITDB_OPTIONS = ["--auth=trust", "--no-sync", "--locale=C.UTF-8", "--encoding=UTF8"]
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "50",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
    "timezone": "UTC",
}


class Postgres:
    """A running server; `durable` says whether commits reach the disk (a benchmark wants that).

    `disk_mib` gives it a disk of its own, which can be filled.
    """

    def __init__(self, *, durable: bool = False, disk_mib: int = 0) -> None:
        server, initdb = _programs()
        sweep(_KIND, _remove)
        self._folder = Folder(_KIND)
        self._names = itertools.count(1)
        self.socket_folder = self._folder.path / "run"
        data = self._folder.path / "data"
        user = _owner()
        for folder in (data, self.socket_folder):
            folder.mkdir(mode=0o700)
            if folder is data and disk_mib:
                size = f"size={disk_mib}m,mode=0700"
                subprocess.run(["mount", "-t", "tmpfs", "-o", size, "usance-rig", str(data)], check=True)
            if user is not None:
                os.chown(folder, user.uid, user.gid)
        make_cluster = [str(initdb), "-D", str(data), "-U", _SUPERUSER, *_INITDB_OPTIONS]
        as_user = ["setpriv", *user.setpriv_options] if user else []
        subprocess.run([*as_user, *make_cluster], check=True, capture_output=True, cwd="/")
        settings = {
            **_SETTINGS,
            **({} if durable else _FAST),
            "unix_socket_directories": str(self.socket_folder),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # SIGINT is PostgreSQL's fast shutdown: it does not wait for clients to leave.
        run = [str(server), "-D", str(data), *options]
        self._launch = lambda: spawn(run, log=self._folder.path / "log", user=user, dies_with="INT")
        self._process = self._launch()
        try:
            wait_until(self._answers, "PostgreSQL answers")
        except BaseException:
            self.stop()
            raise

    def end(self, by: signal.Signals) -> None:
        """SIGINT in good order, SIGQUIT as by a crash; `come_back` in any case."""
        stop(self._process, by=by)

    def come_back(self) -> None:
        """Unless it runs. After a crash it needs a moment to mend what it finds."""
        if self._process.poll() is not None:
            self._process = self._launch()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        return self._process

    def url(self, database: str) -> str:
        """What SQLAlchemy's create_engine takes."""
        return f"postgresql+psycopg://{_SUPERUSER}@/{database}?host={self.socket_folder}"

    @contextmanager
    def database(self, like: str = _EMPTY) -> Iterator[str]:
        """The URL of a fresh copy of another, dropped at the end whoever is still connected."""
        name = f"test_{next(self._names)}"
        self.create(name, like)
        try:
            yield self.url(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def create(self, name: str, like: str = _EMPTY) -> None:
        """A database that lives as long as the server.

        Its files are copied: to write each of their pages to the log, as is the default, takes twice the
        work, and three times the work when it is dropped.
        """
        self._execute(f"CREATE DATABASE {name} TEMPLATE {like} STRATEGY FILE_COPY")

    def stop(self) -> None:
        stop(self._process, by=signal.SIGINT)
        _remove(self._folder.path)
        self._folder.release()

    def cut_connections(self) -> None:
        """As an administrator does it, of all databases."""
        self._execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    @property
    def disk(self) -> Path:
        return self._folder.path / "data"

    def conninfo(self, database: str) -> str:
        """What psycopg itself takes."""
        return f"host={self.socket_folder} user={_SUPERUSER} dbname={database}"

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended at once:\n{(self._folder.path / 'log').read_text()}")
        try:
            psycopg.connect(self.conninfo("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running_postgres(*, durable: bool = False, disk_mib: int = 0) -> Iterator[Postgres]:
    """A server for the length of a block; raises parts.MissingError where its programs are not installed."""
    server = Postgres(durable=durable, disk_mib=disk_mib)
    try:
        yield server
    finally:
        server.stop()


def _remove(folder: Path) -> None:
    for mount in leftovers.mounts(folder):
        subprocess.run(["umount", "--lazy", mount], check=True)
    shutil.rmtree(folder)


def _programs() -> tuple[Path, Path]:
    # Debian keeps each major version's programs in a folder of its own, off the PATH.
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    folders = sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    initdb = find_program("initdb", how=_HOW, folders=folders).resolve()
    return find_program("postgres", how=_HOW, folders=[initdb.parent, *folders]), initdb


def _owner() -> User | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = users.get("postgres") or users["nobody"]
    return User(uid=entry.pw_uid, gid=entry.pw_gid)
