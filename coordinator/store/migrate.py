"""The database's schema, brought up to date: one transaction, safe to ask for at every start.

Alembic is loaded only where there is something to migrate: that alone takes a tenth of a start.
"""

import logging
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, Engine, MetaData, inspect, text

import ledger.tables
from coordinator.store import tables

_LOG = logging.getLogger(__name__)
# Everything that the migrations together must give; a test holds them equal.
METADATA: list[MetaData] = [ledger.tables.metadata, tables.metadata]

# Any number that nothing else uses: two coordinators that start at once must not both migrate.
_MIGRATION_LOCK = 0x7573616E6365206D
_FOLDER = Path(__file__).with_name("migrations")


class NewerError(ValueError):
    """The database is of a newer program, which changed what this one relies on."""


def upgrade(engine: Engine) -> None:
    """Bring the database to the newest schema. Does nothing where it is there already, or beyond.

    Raises NewerError where it is beyond what this program can work with. What is only added to the schema
    leaves older programs at work, so that a new version can be taken back: see docs/upgrading.md.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        revision = _revision(connection)
        if revision == head():
            return
        if revision is None or knows(revision):
            _migrate(connection)
            return
        named = text("SELECT value FROM counter WHERE name = :name")
        oldest = connection.execute(named, {"name": tables.OLDEST_PROGRAM}).scalar_one()
        if int(head()) < oldest:
            raise NewerError(
                f"the database has schema {revision}, which no program before that of schema {oldest:04} can"
                f" keep; this one is of {head()}: start the newer one again, or restore a backup of before"
            )
        _LOG.warning(
            "the database has schema %s, newer than this program's %s; it can keep it", revision, head()
        )


def current(engine: Engine) -> str | None:
    """The revision that the database has; None for an empty one."""
    with engine.connect() as connection:
        return _revision(connection)


def head() -> str:
    """The newest revision that this program knows."""
    return max(_known())


def knows(revision: str) -> bool:
    """Can this program bring a database of that revision up to date?"""
    return revision in _known()


@cache
def _known() -> frozenset[str]:
    """Each migration's file is named for its revision, so that none need be read to know them."""
    return frozenset(file.name.partition("_")[0] for file in (_FOLDER / "versions").glob("[0-9]*_*.py"))


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar_one_or_none()
    return found


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["metadata"] = METADATA
    command.upgrade(config, "head")
