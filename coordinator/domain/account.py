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
