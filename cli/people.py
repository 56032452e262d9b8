"""Account holders, their hosts, and what the operator sees. Plain values, like `cli.model`."""

from dataclasses import dataclass

from cli.model import HostState, Offer, Role


@dataclass(frozen=True, kw_only=True)
class Account:
    account_id: str
    name: str
    roles: tuple[Role, ...]
    wallet_micro: int
    held_micro: int
    earnings_micro: int


@dataclass(frozen=True, kw_only=True)
class Wallet:
    wallet_micro: int
    held_micro: int
    earnings_micro: int


@dataclass(frozen=True, kw_only=True)
class Token:
    """A secret, shown once."""

    token: str
    expires_at_ms: int


@dataclass(frozen=True, kw_only=True)
class LoginSession:
    """A session without its secrets."""

    session_id: str
    label: str
    address: str
    created_at_ms: int
    refreshed_at_ms: int
    expires_at_ms: int
    revoked_at_ms: int
    current: bool


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Somebody of the operator's identity provider who is an account here."""

    subject: str
    account_name: str
    issuer: str
    bound_at_ms: int


@dataclass(frozen=True, kw_only=True)
class Host:
    host_id: str
    hostname: str
    state: HostState
    reason: str
    since_at_ms: int
    offers: tuple[Offer, ...]
    # What somebody should look at.
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrialBalanceLine:
    ledger_account: str
    balance_micro: int


@dataclass(frozen=True, kw_only=True)
class TrialBalance:
    lines: tuple[TrialBalanceLine, ...]
    sum_micro: int


@dataclass(frozen=True, kw_only=True)
class Audit:
    violations: tuple[str, ...]
    transfers_checked: int
