"""People who sign in, in memory: the store's verbs in plain Python."""

from collections.abc import Sequence
from dataclasses import replace

from coordinator.domain.account import Account, Bearer
from coordinator.domain.login import Invitation, LoginSession, Subject
from tests.support.memory_hosts import MemoryAccounts


class MemoryPeople(MemoryAccounts):
    def __init__(self) -> None:
        super().__init__()
        self._passwords: dict[str, str] = {}
        self._invitations: dict[bytes, Invitation] = {}
        self._sessions: dict[str, LoginSession] = {}
        # By digest: the session, and when it ends or the generation that it has.
        self._access: dict[bytes, tuple[str, int]] = {}
        self._refresh: dict[bytes, tuple[str, int]] = {}
        self._subjects: dict[tuple[str, str], tuple[str, int]] = {}

    def password_of(self, account_id: str) -> str | None:
        return self._passwords.get(account_id)

    def save_password(self, account_id: str, before: str | None, after: str | None, now_ms: int) -> bool:
        if self._passwords.get(account_id) != before:
            return False
        self._passwords.pop(account_id, None)
        if after is not None:
            self._passwords[account_id] = after
        return True

    def insert_invitation(self, digest: bytes, account_id: str, expires_ms: int) -> None:
        self._invitations = {
            key: one for key, one in self._invitations.items() if one.is_used or one.account.id != account_id
        }
        owner = self._accounts[account_id]
        self._invitations[digest] = Invitation(account=owner, expires_ms=expires_ms, is_used=False)

    def invitation(self, digest: bytes) -> Invitation | None:
        return self._invitations.get(digest)

    def use_invitation(self, digest: bytes, now_ms: int) -> bool:
        one = self._invitations.get(digest)
        if one is None or one.is_used or one.expires_ms <= now_ms:
            return False
        self._invitations[digest] = replace(one, is_used=True)
        return True

    def insert_session(self, session: LoginSession) -> None:
        assert session.id not in self._sessions
        over = {
            one.id
            for one in self._sessions.values()
            if one.account_id == session.account_id and one.expires_ms <= session.created_ms
        }
        self._access = {key: kept for key, kept in self._access.items() if kept[0] not in over}
        self._refresh = {key: kept for key, kept in self._refresh.items() if kept[0] not in over}
        self._sessions[session.id] = session

    def session(self, session_id: str) -> LoginSession | None:
        return self._sessions.get(session_id)

    def sessions_of(self, account_id: str, good_at_ms: int | None, limit: int) -> Sequence[LoginSession]:
        mine = [
            one for _, one in sorted(self._sessions.items(), reverse=True) if one.account_id == account_id
        ]
        return [one for one in mine if good_at_ms is None or one.is_good(good_at_ms)][:limit]

    def was_at(self, account_id: str, address: str, since_ms: int) -> bool:
        return any(
            (one.account_id, one.address) == (account_id, address) and one.refreshed_ms >= since_ms
            for one in self._sessions.values()
        )

    def renew_session(self, session_id: str, generation: int, request_id: str, now_ms: int) -> bool:
        one = self._sessions.get(session_id)
        if one is None or one.generation != generation or one.revoked_ms:
            return False
        self._sessions[session_id] = replace(
            one, generation=generation + 1, request_id=request_id, refreshed_ms=now_ms
        )
        return True

    def insert_session_tokens(
        self,
        session_id: str,
        generation: int,
        access: bytes,
        access_expires_ms: int,
        refresh: bytes,
        now_ms: int,
    ) -> None:
        self._access = {
            key: (of, ends_ms)
            for key, (of, ends_ms) in self._access.items()
            if of != session_id or ends_ms > now_ms
        }
        self._access[access] = session_id, access_expires_ms
        self._refresh[refresh] = session_id, generation

    def refreshes(self, digest: bytes) -> tuple[str, int] | None:
        return self._refresh.get(digest)

    def end_session(self, session_id: str, now_ms: int) -> None:
        one = self._sessions.get(session_id)
        if one is not None and one.is_good(now_ms):
            self._sessions[session_id] = replace(one, revoked_ms=now_ms)
        for kept in (self._access, self._refresh):
            for key in [key for key, (of, _) in kept.items() if of == session_id]:
                del kept[key]

    def session_bearer(self, digest: bytes, now_ms: int) -> Bearer | None:
        session_id, ends_ms = self._access.get(digest, ("", 0))
        if ends_ms <= now_ms or not self._sessions[session_id].is_good(now_ms):
            return None
        one = self._sessions[session_id]
        owner = self._accounts[one.account_id]
        return Bearer(account=owner, token_id=one.id, expires_ms=one.expires_ms)

    def bind_subject(self, issuer: str, subject: str, account_id: str, now_ms: int) -> bool:
        if (issuer, subject) in self._subjects:
            return False
        self._subjects[issuer, subject] = account_id, now_ms
        return True

    def release_subject(self, issuer: str, subject: str) -> None:
        self._subjects.pop((issuer, subject), None)

    def account_of_subject(self, issuer: str, subject: str) -> Account | None:
        account_id, _ = self._subjects.get((issuer, subject), ("", 0))
        return self._accounts.get(account_id)

    def subjects(self, start: int, limit: int) -> Sequence[Subject]:
        return [
            Subject(issuer=of, subject=name, account_name=self._accounts[account_id].name, bound_ms=bound_ms)
            for (of, name), (account_id, bound_ms) in sorted(self._subjects.items())
        ][start : start + limit]
