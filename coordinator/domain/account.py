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


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token without its secret. Its name is made of the digest's beginning, which gives nothing away."""

    id: str
    label: str
    created_ms: int
    expires_ms: int
    revoked_ms: int
