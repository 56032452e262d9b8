"""Who takes part, and by what they are known."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
)

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
    # What it opens, one word after the other; absent where it opens all that its account may.
    Column("scopes", String(256)),
    # To a minute.
    Column("last_used_ms", BigInteger),
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

# Who did what that needs trust or moves money. In the transaction that did it.
act = Table(
    "act",
    metadata,
    id_column(),
    Column("happened_ms", BigInteger, nullable=False),
    Column("who", String(64), nullable=False),
    Column("token_id", String(64), nullable=False),
    Column("address", String(128), nullable=False),
    Column("rpc", String(64), nullable=False),
    Column("request", Text, nullable=False),
    Column("result", String(32), nullable=False),
    Column("request_id", String(64), nullable=False),
)
Index("act_who_ix", act.c.who, act.c.id)

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
