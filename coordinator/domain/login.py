"""Passwords and sessions: what is asked of a password, and how whoever guesses one is slowed down."""

from dataclasses import dataclass

from coordinator.domain.account import Account

PASSWORD_BYTES_MIN, PASSWORD_BYTES_MAX = 12, 1_024
# Of different characters: below that it is one key held down.
_DIFFERENT_MIN = 4


@dataclass(frozen=True, kw_only=True)
class LoginSession:
    """Known by its id; its secrets are kept as digests elsewhere."""

    id: str
    account_id: str
    label: str
    address: str
    created_ms: int
    refreshed_ms: int
    expires_ms: int
    # How many pairs of tokens it has had, and the request that asked for the newest.
    generation: int = 1
    request_id: str = ""
    revoked_ms: int = 0

    def is_good(self, now_ms: int) -> bool:
        return not self.revoked_ms and now_ms < self.expires_ms


@dataclass(frozen=True, kw_only=True)
class Invitation:
    account: Account
    expires_ms: int
    is_used: bool


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Somebody of an identity provider who is an account here."""

    issuer: str
    subject: str
    account_name: str
    bound_ms: int


def password_fault(password: str, account_name: str) -> str:
    """What a new password should be, where it is not; how it is made up is its owner's affair."""
    if not PASSWORD_BYTES_MIN <= len(password.encode()) <= PASSWORD_BYTES_MAX:
        return f"{PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes"
    if len(set(password)) < _DIFFERENT_MIN:
        return f"at least {_DIFFERENT_MIN} different characters"
    if password.casefold() == account_name.casefold():
        return "something else than the account's name"
    return ""


@dataclass(frozen=True, kw_only=True)
class Slowness:
    """After so many failures each try has to wait: a second, two, four, up to the most."""

    free: int
    wait_ms_max: int


@dataclass(frozen=True, kw_only=True)
class Failures:
    count: int = 0
    last_ms: int = 0


_FIRST_WAIT_MS = 1_000
# 2 ** 30 seconds are longer than any wait that may be set.
_DOUBLINGS_MAX = 30


def failed(before: Failures, slowness: Slowness, now_ms: int) -> Failures:
    return Failures(count=_remembered(before, slowness, now_ms) + 1, last_ms=now_ms)


def pardoned(before: Failures) -> Failures:
    """One of them was none."""
    return Failures(count=max(0, before.count - 1), last_ms=before.last_ms)


def failures_wait_ms(failures: Failures, slowness: Slowness, now_ms: int) -> int:
    """How long until the next try is looked at. One that comes before is none, and lengthens nothing."""
    beyond = _remembered(failures, slowness, now_ms) - slowness.free
    if beyond < 0:
        return 0
    wait_ms = min(_FIRST_WAIT_MS << min(beyond, _DOUBLINGS_MAX), slowness.wait_ms_max)
    return max(0, failures.last_ms + wait_ms - now_ms)


def _remembered(failures: Failures, slowness: Slowness, now_ms: int) -> int:
    """One is forgotten for each of the longest waits that passes without another."""
    passed_ms = max(0, now_ms - failures.last_ms)
    return max(0, failures.count - passed_ms // slowness.wait_ms_max)
