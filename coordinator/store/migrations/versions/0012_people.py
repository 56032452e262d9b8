"""How people prove who they are: passwords, invitations, sessions, subjects of an identity provider."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_BYTES = {"sqlite": "BLOB", "postgresql": "BYTEA"}
STATEMENTS = [
    """
CREATE TABLE account_password (
    account_id VARCHAR(64) NOT NULL,
    hash TEXT NOT NULL,
    changed_ms BIGINT NOT NULL,
    CONSTRAINT account_password_pk PRIMARY KEY (account_id),
    CONSTRAINT account_password_account_id_fk FOREIGN KEY(account_id) REFERENCES account (id)
)
""",
    """
CREATE TABLE invitation (
    digest {bytes} NOT NULL,
    account_id VARCHAR(64) NOT NULL,
    expires_ms BIGINT NOT NULL,
    used_ms BIGINT,
    CONSTRAINT invitation_pk PRIMARY KEY (digest),
    CONSTRAINT invitation_account_id_fk FOREIGN KEY(account_id) REFERENCES account (id)
)
""",
    "CREATE INDEX invitation_account_id_ix ON invitation (account_id)",
    """
CREATE TABLE login_session (
    id VARCHAR(64) NOT NULL,
    account_id VARCHAR(64) NOT NULL,
    label VARCHAR(64) NOT NULL,
    address VARCHAR(128) NOT NULL,
    created_ms BIGINT NOT NULL,
    refreshed_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    generation INTEGER NOT NULL,
    request_id VARCHAR(64) NOT NULL,
    revoked_ms BIGINT,
    CONSTRAINT login_session_pk PRIMARY KEY (id),
    CONSTRAINT login_session_account_id_fk FOREIGN KEY(account_id) REFERENCES account (id)
)
""",
    "CREATE INDEX login_session_account_id_ix ON login_session (account_id)",
    """
CREATE TABLE session_access (
    digest {bytes} NOT NULL,
    session_id VARCHAR(64) NOT NULL,
    expires_ms BIGINT NOT NULL,
    CONSTRAINT session_access_pk PRIMARY KEY (digest),
    CONSTRAINT session_access_session_id_fk FOREIGN KEY(session_id) REFERENCES login_session (id)
)
""",
    "CREATE INDEX session_access_session_id_ix ON session_access (session_id)",
    """
CREATE TABLE session_refresh (
    digest {bytes} NOT NULL,
    session_id VARCHAR(64) NOT NULL,
    generation INTEGER NOT NULL,
    CONSTRAINT session_refresh_pk PRIMARY KEY (digest),
    CONSTRAINT session_refresh_session_id_fk FOREIGN KEY(session_id) REFERENCES login_session (id)
)
""",
    "CREATE INDEX session_refresh_session_id_ix ON session_refresh (session_id)",
    """
CREATE TABLE oidc_subject (
    issuer VARCHAR(255) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    account_id VARCHAR(64) NOT NULL,
    bound_ms BIGINT NOT NULL,
    CONSTRAINT oidc_subject_pk PRIMARY KEY (issuer, subject),
    CONSTRAINT oidc_subject_account_id_fk FOREIGN KEY(account_id) REFERENCES account (id)
)
""",
]


def upgrade() -> None:
    connection = op.get_bind()
    for statement in STATEMENTS:
        connection.exec_driver_sql(statement.format(bytes=_BYTES[connection.dialect.name]))


def downgrade() -> None:
    raise NotImplementedError("what was bought and paid only moves forward: restore a backup instead")
