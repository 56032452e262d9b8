"""Labels of tokens, spending caps, attempts by seller, and four more kinds of events."""

from alembic import op

from coordinator.store.migrations.frozen import books_0006

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    sqlite = connection.dialect.name == "sqlite"
    for statement in books_0006.SQLITE if sqlite else books_0006.POSTGRESQL:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    raise NotImplementedError("what was bought and paid only moves forward: restore a backup instead")
