"""What the services may ask of the store about people who sign in: the rest of `coordinator.store.ports`."""

from collections.abc import Sequence
from typing import Protocol

from coordinator.domain.account import Account, Bearer
from coordinator.domain.login import Invitation, LoginSession, Subject


class People(Protocol):
    """Passwords, invitations, sessions, and who of an identity provider is whom; secrets by their digests."""

    def password_of(self, account_id: str) -> str | None:
        """As its slow hash."""
        ...

    def save_password(self, account_id: str, before: str | None, after: str | None, now_ms: int) -> bool:
        """False: it is not, any more, what it was taken for."""
        ...

    def insert_invitation(self, digest: bytes, account_id: str, expires_ms: int) -> None:
        """The account's others are void."""
        ...

    def invitation(self, digest: bytes) -> Invitation | None: ...

    def use_invitation(self, digest: bytes, now_ms: int) -> bool:
        """False: it was used, or is over."""
        ...

    def insert_session(self, session: LoginSession) -> None:
        """What tokens the account's sessions had that are over by then go."""
        ...

    def session(self, session_id: str) -> LoginSession | None: ...

    def sessions_of(self, account_id: str, good_at_ms: int | None, limit: int) -> Sequence[LoginSession]:
        """Newest first; `good_at_ms` leaves out those not good."""
        ...

    def was_at(self, account_id: str, address: str, since_ms: int) -> bool:
        """Has it had a session of this address?"""
        ...

    def renew_session(self, session_id: str, generation: int, request_id: str, now_ms: int) -> bool:
        """From this generation to the next; False: it is not at it."""
        ...

    def insert_session_tokens(
        self,
        session_id: str,
        generation: int,
        access: bytes,
        access_expires_ms: int,
        refresh: bytes,
        now_ms: int,
    ) -> None:
        """The next pair. Access tokens of the session that are over go."""
        ...

    def refreshes(self, digest: bytes) -> tuple[str, int] | None:
        """The session and the generation of a refresh token, used or not."""
        ...

    def end_session(self, session_id: str, now_ms: int) -> None:
        """It and all its tokens."""
        ...

    def session_bearer(self, digest: bytes, now_ms: int) -> Bearer | None:
        """Who may come with this access token, if it is good now."""
        ...

    def bind_subject(self, issuer: str, subject: str, account_id: str, now_ms: int) -> bool:
        """False: it is somebody's."""
        ...

    def release_subject(self, issuer: str, subject: str) -> None: ...

    def account_of_subject(self, issuer: str, subject: str) -> Account | None: ...

    def subjects(self, start: int, limit: int) -> Sequence[Subject]:
        """In the order of their names, from a place on."""
        ...
