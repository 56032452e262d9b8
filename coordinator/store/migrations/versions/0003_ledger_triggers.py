"""The same guards of the ledger on SQLite with fewer lookups a transfer; PostgreSQL stays as it is."""

from alembic import op

from coordinator.store.migrations.frozen import ledger_0003_sqlite

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        for statement in ledger_0003_sqlite.STATEMENTS:
            connection.exec_driver_sql(statement)


def downgrade() -> None:
    raise NotImplementedError("what was bought and paid only moves forward: restore a backup instead")
