"""The database's schema, brought up to date: one transaction, safe to ask for at every start."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, text

import ledger.tables
from coordinator.store import tables

# Everything that the migrations together must give; a test holds them equal.
METADATA: list[MetaData] = [ledger.tables.metadata, tables.metadata]

# Any number that nothing else uses: two coordinators that start at once must not both migrate.
_MIGRATION_LOCK = 0x7573616E6365206D


def upgrade(engine: Engine) -> None:
    """Bring the database to the newest schema. Does nothing where it is there already."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        command.upgrade(_config(connection), "head")


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
