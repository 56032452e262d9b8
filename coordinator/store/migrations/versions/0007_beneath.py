"""What a seller wished before the operator's distrust, and when output came in."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

STATEMENTS = [
    "ALTER TABLE host ADD COLUMN hold_under VARCHAR(16)"
    " CONSTRAINT host_hold_under_ck CHECK (hold_under IN ('draining', 'none', 'paused'))",
    "ALTER TABLE host ADD COLUMN hold_under_since_ms BIGINT",
    "ALTER TABLE log_chunk ADD COLUMN stored_ms BIGINT",
]


def upgrade() -> None:
    connection = op.get_bind()
    for statement in STATEMENTS:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    raise NotImplementedError("what was bought and paid only moves forward: restore a backup instead")
