"""The ledger's guards on PostgreSQL for less of the server's time; SQLite stays as it is."""

from alembic import op

from coordinator.store.migrations.frozen import ledger_0015_postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        for statement in ledger_0015_postgresql.STATEMENTS:
            connection.exec_driver_sql(statement.replace("%", "%%"))


def downgrade() -> None:
    raise NotImplementedError("money only moves forward: restore a backup instead")
