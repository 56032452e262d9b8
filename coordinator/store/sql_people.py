"""Passwords, invitations, sessions and subjects in SQL."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, and_, delete, insert, select, update

from coordinator.domain.account import Account, Bearer, Role
from coordinator.domain.login import Invitation, LoginSession, Subject
from coordinator.store.sql_accounts import SqlAccounts
from coordinator.store.tables import account, account_role
from coordinator.store.tables_people import (
    account_password,
    invitation,
    login_session,
    oidc_subject,
    session_access,
    session_refresh,
)

_NAMES = tuple(column.name for column in login_session.c)


class SqlPeople(SqlAccounts):
    def password_of(self, account_id: str) -> str | None:
        query = select(account_password.c.hash).where(account_password.c.account_id == account_id)
        return self.connection.execute(query).scalar_one_or_none()

    def save_password(self, account_id: str, before: str | None, after: str | None, now_ms: int) -> bool:
        if self.password_of(account_id) != before:
            return False
        mine = account_password.c.account_id == account_id
        self.connection.execute(delete(account_password).where(mine))
        if after is not None:
            row = {"account_id": account_id, "hash": after, "changed_ms": now_ms}
            self.connection.execute(insert(account_password).values(row))
        return True

    def insert_invitation(self, digest: bytes, account_id: str, expires_ms: int) -> None:
        mine = and_(invitation.c.account_id == account_id, invitation.c.used_ms.is_(None))
        self.connection.execute(delete(invitation).where(mine))
        row = {"digest": digest, "account_id": account_id, "expires_ms": expires_ms}
        self.connection.execute(insert(invitation).values(row))

    def invitation(self, digest: bytes) -> Invitation | None:
        row = self.connection.execute(select(invitation).where(invitation.c.digest == digest)).one_or_none()
        if row is None:
            return None
        owner = self.account(row.account_id)
        assert owner is not None, "an account is never deleted"
        return Invitation(account=owner, expires_ms=row.expires_ms, is_used=row.used_ms is not None)

    def use_invitation(self, digest: bytes, now_ms: int) -> bool:
        of = invitation.c
        good = and_(of.digest == digest, of.used_ms.is_(None), of.expires_ms > now_ms)
        return self.connection.execute(update(invitation).where(good).values(used_ms=now_ms)).rowcount == 1

    def insert_session(self, session: LoginSession) -> None:
        of = login_session.c
        mine_over = and_(of.account_id == session.account_id, of.expires_ms <= session.created_ms)
        for table in (session_access, session_refresh):
            over = table.c.session_id.in_(select(of.id).where(mine_over))
            self.connection.execute(delete(table).where(over))
        row = {**vars(session), "revoked_ms": session.revoked_ms or None}
        self.connection.execute(insert(login_session).values(row))

    def session(self, session_id: str) -> LoginSession | None:
        query = select(login_session).where(login_session.c.id == session_id)
        row = self.connection.execute(query).one_or_none()
        return None if row is None else _session(row)

    def sessions_of(self, account_id: str, good_at_ms: int | None, limit: int) -> Sequence[LoginSession]:
        of = login_session.c
        query = select(login_session).where(of.account_id == account_id).order_by(of.id.desc()).limit(limit)
        if good_at_ms is not None:
            query = query.where(of.expires_ms > good_at_ms, of.revoked_ms.is_(None))
        return [_session(row) for row in self.connection.execute(query)]

    def was_at(self, account_id: str, address: str, since_ms: int) -> bool:
        of = login_session.c
        here = and_(of.account_id == account_id, of.address == address, of.refreshed_ms >= since_ms)
        return self.connection.execute(select(of.id).where(here).limit(1)).first() is not None

    def renew_session(self, session_id: str, generation: int, request_id: str, now_ms: int) -> bool:
        of = login_session.c
        one = and_(of.id == session_id, of.generation == generation, of.revoked_ms.is_(None))
        new = {"generation": generation + 1, "request_id": request_id, "refreshed_ms": now_ms}
        return self.connection.execute(update(login_session).where(one).values(new)).rowcount == 1

    def insert_session_tokens(
        self,
        session_id: str,
        generation: int,
        access: bytes,
        access_expires_ms: int,
        refresh: bytes,
        now_ms: int,
    ) -> None:
        of = session_access.c
        over = and_(of.session_id == session_id, of.expires_ms <= now_ms)
        self.connection.execute(delete(session_access).where(over))
        pair = {"digest": access, "session_id": session_id, "expires_ms": access_expires_ms}
        self.connection.execute(insert(session_access).values(pair))
        pair = {"digest": refresh, "session_id": session_id, "generation": generation}
        self.connection.execute(insert(session_refresh).values(pair))

    def refreshes(self, digest: bytes) -> tuple[str, int] | None:
        query = select(session_refresh).where(session_refresh.c.digest == digest)
        row = self.connection.execute(query).one_or_none()
        return None if row is None else (row.session_id, row.generation)

    def end_session(self, session_id: str, now_ms: int) -> None:
        of = login_session.c
        one = and_(of.id == session_id, of.revoked_ms.is_(None), of.expires_ms > now_ms)
        self.connection.execute(update(login_session).where(one).values(revoked_ms=now_ms))
        for table in (session_access, session_refresh):
            self.connection.execute(delete(table).where(table.c.session_id == session_id))

    def session_bearer(self, digest: bytes, now_ms: int) -> Bearer | None:
        good = (
            select(
                account.c.id,
                account.c.name,
                account_role.c.role,
                login_session.c.id,
                login_session.c.expires_ms,
            )
            .join(account_role, account_role.c.account_id == account.c.id)
            .join(login_session, login_session.c.account_id == account.c.id)
            .join(session_access, session_access.c.session_id == login_session.c.id)
            .where(
                session_access.c.digest == digest,
                session_access.c.expires_ms > now_ms,
                login_session.c.expires_ms > now_ms,
                login_session.c.revoked_ms.is_(None),
            )
        )
        rows = self.connection.execute(good).all()
        if not rows:
            return None
        account_id, name, _, session_id, expires_ms = rows[0]
        owner = Account(id=account_id, name=name, roles=frozenset(Role(row.role) for row in rows))
        return Bearer(account=owner, token_id=session_id, expires_ms=expires_ms)

    def bind_subject(self, issuer: str, subject: str, account_id: str, now_ms: int) -> bool:
        if self.account_of_subject(issuer, subject) is not None:
            return False
        row = {"issuer": issuer, "subject": subject, "account_id": account_id, "bound_ms": now_ms}
        self.connection.execute(insert(oidc_subject).values(row))
        return True

    def release_subject(self, issuer: str, subject: str) -> None:
        of = oidc_subject.c
        self.connection.execute(delete(oidc_subject).where(of.issuer == issuer, of.subject == subject))

    def account_of_subject(self, issuer: str, subject: str) -> Account | None:
        of = oidc_subject.c
        query = select(of.account_id).where(of.issuer == issuer, of.subject == subject)
        found = self.connection.execute(query).scalar_one_or_none()
        return None if found is None else self.account(found)

    def subjects(self, start: int, limit: int) -> Sequence[Subject]:
        of = oidc_subject.c
        query: Select[Any] = (
            select(of.issuer, of.subject, of.bound_ms, account.c.name)
            .join(account, account.c.id == of.account_id)
            .order_by(of.issuer, of.subject)
            .offset(start)
            .limit(limit)
        )
        return [
            Subject(issuer=row.issuer, subject=row.subject, account_name=row.name, bound_ms=row.bound_ms)
            for row in self.connection.execute(query)
        ]


def _session(row: Row[Any]) -> LoginSession:
    values = {name: getattr(row, name) for name in _NAMES}
    return LoginSession(**{**values, "revoked_ms": row.revoked_ms or 0})
