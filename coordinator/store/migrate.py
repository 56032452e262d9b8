"""The database's schema, brought up to date: one transaction, safe to ask for at every start."""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, text

import ledger.tables
from coordinator.store import tables

_LOG = logging.getLogger(__name__)
# Everything that the migrations together must give; a test holds them equal.
METADATA: list[MetaData] = [ledger.tables.metadata, tables.metadata]

# Any number that nothing else uses: two coordinators that start at once must not both migrate.
_MIGRATION_LOCK = 0x7573616E6365206D


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
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision is None or knows(revision):
            command.upgrade(_config(connection), "head")
            return
        named = text("SELECT value FROM counter WHERE name = :name")
        oldest = connection.execute(named, {"name": tables.OLDEST_PROGRAM}).scalar_one()
        if int(head() or 0) < oldest:
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
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str | None:
    """The newest revision that this program knows."""
    return ScriptDirectory.from_config(_config(None)).get_current_head()


def knows(revision: str) -> bool:
    """Can this program bring a database of that revision up to date?"""
    return revision in {
        script.revision for script in ScriptDirectory.from_config(_config(None)).walk_revisions()
    }


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["metadata"] = METADATA
    return config
