"""What tokens open and when they were last used; who did what."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

STATEMENTS = [
    "ALTER TABLE api_token ADD COLUMN scopes VARCHAR(256)",
    "ALTER TABLE api_token ADD COLUMN last_used_ms BIGINT",
    """
CREATE TABLE act (
    id VARCHAR(64) NOT NULL,
    happened_ms BIGINT NOT NULL,
    who VARCHAR(64) NOT NULL,
    token_id VARCHAR(64) NOT NULL,
    address VARCHAR(128) NOT NULL,
    rpc VARCHAR(64) NOT NULL,
    request TEXT NOT NULL,
    result VARCHAR(32) NOT NULL,
    request_id VARCHAR(64) NOT NULL,
    CONSTRAINT act_pk PRIMARY KEY (id)
)
""",
    "CREATE INDEX act_who_ix ON act (who, id)",
]
GUARDS = {
    "sqlite": [
        f"CREATE TRIGGER act_no_{verb.lower()} BEFORE {verb} ON act"
        " BEGIN SELECT RAISE(ABORT, 'market: act is append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE TRIGGER act_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON act"
        " FOR EACH STATEMENT EXECUTE FUNCTION market_append_only()"
    ],
}


def upgrade() -> None:
    connection = op.get_bind()
    for statement in (*STATEMENTS, *GUARDS[connection.dialect.name]):
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    raise NotImplementedError("what was bought and paid only moves forward: restore a backup instead")
