"""Hosts that are refused for ever, and every certificate that a host was given."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_BYTES = {"sqlite": "BLOB", "postgresql": "BYTEA"}
TABLE = """
CREATE TABLE host_certificate (
    serial VARCHAR(40) NOT NULL,
    host_id VARCHAR(64) NOT NULL,
    authority_digest {bytes} NOT NULL,
    issued_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    CONSTRAINT host_certificate_pk PRIMARY KEY (serial),
    CONSTRAINT host_certificate_host_id_fk FOREIGN KEY(host_id) REFERENCES host (id)
)
"""
BOTH = [
    "ALTER TABLE host ADD COLUMN revoked_ms BIGINT",
    "CREATE INDEX host_certificate_host_id_ix ON host_certificate (host_id)",
]
GUARDS = {
    "sqlite": [
        f"CREATE TRIGGER host_certificate_no_{verb.lower()} BEFORE {verb} ON host_certificate"
        " BEGIN SELECT RAISE(ABORT, 'market: host_certificate is append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE TRIGGER host_certificate_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON host_certificate"
        " FOR EACH STATEMENT EXECUTE FUNCTION market_append_only()"
    ],
}


def upgrade() -> None:
    connection = op.get_bind()
    name = connection.dialect.name
    for statement in (TABLE.format(bytes=_BYTES[name]), *BOTH, *GUARDS[name]):
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    raise NotImplementedError("what was bought and paid only moves forward: restore a backup instead")
