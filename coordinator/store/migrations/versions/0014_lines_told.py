"""One event tells of all the bill lines of a settlement: a row for each was half of what usage cost.

A program of before reads such a row as one of its last line alone.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

STATEMENTS = [
    "ALTER TABLE event ADD COLUMN bill_line_first BIGINT",
    "UPDATE counter SET value = 14 WHERE name = 'oldest_program'",
]


def upgrade() -> None:
    connection = op.get_bind()
    for statement in STATEMENTS:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    raise NotImplementedError("what was bought and paid only moves forward: restore a backup instead")
