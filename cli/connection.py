"""Where the coordinator is, whose certificate it must show, and who we are."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class SessionTokens:
    """Of a session, which renews itself."""

    access_token: str = field(repr=False)
    # By the clock of this machine.
    good_until_ms: int
    refresh_token: str = field(repr=False)
    # The request that is to renew it, while its answer is not kept: to ask again is not to ask twice.
    renewing: str = ""


class SessionStore(Protocol):
    """Where a session's tokens are kept. All processes of one user share it."""

    def alone(self) -> AbstractContextManager[bool]:
        """For a block, nobody else has it; False: somebody has it now."""
        ...

    def read(self) -> SessionTokens | None:
        """None: they are gone."""
        ...

    def write(self, tokens: SessionTokens) -> None:
        """Lasting, before it returns."""
        ...


@dataclass(frozen=True, kw_only=True)
class Connection:
    target: str
    authority_pem: bytes
    # "" for what needs none.
    token: str = field(repr=False)
    # Where the token is a session's.
    session: SessionStore | None = None
