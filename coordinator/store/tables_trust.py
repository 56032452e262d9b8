"""Who takes part, and by what they are known."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, LargeBinary, String, Table

from coordinator.domain.account import Role
from coordinator.store.tables_base import id_column, metadata, one_of

account = Table(
    "account",
    metadata,
    id_column(),
    Column("name", String(64), nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
)

account_role = Table(
    "account_role",
    metadata,
    Column("account_id", ForeignKey("account.id"), primary_key=True),
    Column("role", String(16), CheckConstraint(one_of("role", Role), name="role"), primary_key=True),
)

# Only the digest of a token is kept: who reads the database can't use it.
api_token = Table(
    "api_token",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    # For people: what it is for.
    Column("label", String(64), nullable=False),
)

enrolment_token = Table(
    "enrolment_token",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    # Set by its one use: the host it made, and the key that it was made for.
    Column("host_id", String(64)),
    Column("key_digest", LargeBinary(32)),
    CheckConstraint("(host_id IS NULL) = (key_digest IS NULL)", name="use"),
)

# Every certificate that a host was given.
host_certificate = Table(
    "host_certificate",
    metadata,
    Column("serial", String(40), primary_key=True),
    Column("host_id", ForeignKey("host.id"), nullable=False, index=True),
    Column("authority_digest", LargeBinary(32), nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)
