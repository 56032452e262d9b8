"""How people prove who they are: passwords, invitations, sessions, and subjects of an identity provider."""

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, String, Table, Text

from coordinator.store.tables_base import id_column, metadata

account_password = Table(
    "account_password",
    metadata,
    Column("account_id", ForeignKey("account.id"), primary_key=True),
    # With its salt and what it costs to compute.
    Column("hash", Text, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
)

invitation = Table(
    "invitation",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("expires_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger),
)

login_session = Table(
    "login_session",
    metadata,
    id_column(),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("label", String(64), nullable=False),
    Column("address", String(128), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("refreshed_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("revoked_ms", BigInteger),
)

# Those that are good, and some that are over.
session_access = Table(
    "session_access",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("session_id", ForeignKey("login_session.id"), nullable=False, index=True),
    Column("expires_ms", BigInteger, nullable=False),
)

# All that a session has had, as long as it is good: one that comes twice ends it.
session_refresh = Table(
    "session_refresh",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("session_id", ForeignKey("login_session.id"), nullable=False, index=True),
    Column("generation", Integer, nullable=False),
)

oidc_subject = Table(
    "oidc_subject",
    metadata,
    Column("issuer", String(255), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("bound_ms", BigInteger, nullable=False),
)
