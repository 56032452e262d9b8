"""The ledger: accounts, transfers, refusals, seals, and the triggers that guard them."""

from alembic import op

from coordinator.store.migrations.frozen import ledger_0001_postgresql, ledger_0001_sqlite

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        for statement in ledger_0001_sqlite.STATEMENTS:
            connection.exec_driver_sql(statement)
    else:
        for statement in ledger_0001_postgresql.STATEMENTS:
            connection.exec_driver_sql(statement.replace("%", "%%"))


def downgrade() -> None:
    raise NotImplementedError("money only moves forward: restore a backup instead")
