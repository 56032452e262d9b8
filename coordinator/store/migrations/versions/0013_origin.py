"""Which request a job came from, for logs and traces."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

STATEMENTS = [
    "ALTER TABLE job ADD COLUMN request_id VARCHAR(64)",
    "ALTER TABLE job ADD COLUMN traceparent VARCHAR(64)",
]


def upgrade() -> None:
    connection = op.get_bind()
    for statement in STATEMENTS:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    raise NotImplementedError("what was bought and paid only moves forward: restore a backup instead")
