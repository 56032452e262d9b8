"""Who takes part."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    BUYER = "buyer"
    SELLER = "seller"
    OPERATOR = "operator"


@dataclass(frozen=True, kw_only=True)
class Account:
    id: str
    name: str
    roles: frozenset[Role]


@dataclass(frozen=True, kw_only=True)
class Balances:
    """What an account holds, in micro-credits."""

    wallet_micro: int
    held_micro: int
    earnings_micro: int


TOKEN_NAME_PREFIX = "tok_"  # noqa: S105 - of a name, not of a secret
TOKEN_NAMED_BYTES = 8


def token_name(digest: bytes) -> str:
    return TOKEN_NAME_PREFIX + digest[:TOKEN_NAMED_BYTES].hex()


class Scope(StrEnum):
    """What a token opens, of what its account may."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    WALLET_READ = "wallet:read"
    WALLET_WRITE = "wallet:write"
    HOSTS_READ = "hosts:read"
    HOSTS_WRITE = "hosts:write"
    TOKENS_READ = "tokens:read"
    TOKENS_WRITE = "tokens:write"
    ADMIN_READ = "admin:read"
    ADMIN_WRITE = "admin:write"


ALL_SCOPES = frozenset(Scope)


def scopes_named(name: str) -> frozenset[Scope]:
    """One, or both of a kind ("jobs:*"); nothing where there is none of that name."""
    kind, _, which = name.partition(":")
    return frozenset(
        scope for scope in Scope if scope == name or (which == "*" and scope.startswith(f"{kind}:"))
    )


@dataclass(frozen=True, kw_only=True)
class Bearer:
    """Who came with a token, and what it opens."""

    account: Account
    token_id: str
    # Or a session's, of which it is the access token. What is made with it lasts no longer.
    expires_ms: int
    scopes: frozenset[Scope] = ALL_SCOPES


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token without its secret. Its name is made of the digest's beginning, which gives nothing away."""

    id: str
    label: str
    created_ms: int
    expires_ms: int
    revoked_ms: int
    scopes: frozenset[Scope] = ALL_SCOPES
    last_used_ms: int = 0
