"""A GPU belongs to one host, and what hosts claimed that can't be is kept."""

from alembic import op

from coordinator.store.migrations.frozen import claims_0005

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    for statement in (*claims_0005.STATEMENTS, *claims_0005.TRIGGERS[connection.dialect.name]):
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    raise NotImplementedError("what was bought and paid only moves forward: restore a backup instead")
