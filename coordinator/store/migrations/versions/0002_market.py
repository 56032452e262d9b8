"""The market: accounts, hosts, jobs, attempts, bills, output, events, and what guards them."""

from alembic import op

from coordinator.store.migrations.frozen import market_0002_postgresql, market_0002_sqlite

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        for statement in market_0002_sqlite.STATEMENTS:
            connection.exec_driver_sql(statement)
    else:
        for statement in market_0002_postgresql.STATEMENTS:
            connection.exec_driver_sql(statement.replace("%", "%%"))


def downgrade() -> None:
    raise NotImplementedError("what was bought and paid only moves forward: restore a backup instead")
