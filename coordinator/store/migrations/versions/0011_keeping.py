"""Databases that were restored, what has gone into the archive, and one more reason and kind of event."""

from alembic import op
from sqlalchemy import Connection

from coordinator.store.migrations.frozen import keeping_0011

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_BYTES = {"sqlite": "BLOB", "postgresql": "BYTEA"}


def upgrade() -> None:
    connection = op.get_bind()
    name = connection.dialect.name
    for statement in keeping_0011.TABLES:
        connection.exec_driver_sql(statement.format(bytes=_BYTES[name]))
    for statement in keeping_0011.SQLITE_GUARDS if name == "sqlite" else keeping_0011.POSTGRESQL:
        connection.exec_driver_sql(statement)
    if name == "sqlite":
        _widen(connection)


def _widen(connection: Connection) -> None:
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    for table, old, new in keeping_0011.SQLITE_CHECKS:
        connection.exec_driver_sql(
            "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = ?",
            (old, new, table),
        )
    # Whoever has the database open reads its schema anew.
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")


def downgrade() -> None:
    raise NotImplementedError("what was bought and paid only moves forward: restore a backup instead")
