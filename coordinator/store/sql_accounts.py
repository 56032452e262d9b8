"""Accounts, tokens and remembered requests in SQL."""

from collections.abc import Sequence

from sqlalchemy import Select, insert, select

from coordinator.domain.account import ALL_SCOPES, Account, Bearer, Role, Scope, token_name
from coordinator.store.bulk import insert_rows, rows_among_pairs
from coordinator.store.sql_part import SqlPart
from coordinator.store.sql_tokens import scopes_from_column
from coordinator.store.tables import account, account_role, api_token, request


class SqlAccounts(SqlPart):
    def insert_account(self, new: Account, now_ms: int) -> bool:
        if self.account_named(new.name) is not None:
            return False
        self.connection.execute(insert(account).values(id=new.id, name=new.name, created_ms=now_ms))
        roles = [{"account_id": new.id, "role": str(role)} for role in sorted(new.roles)]
        self.connection.execute(insert(account_role), roles)
        return True

    def account(self, account_id: str) -> Account | None:
        return self._one(select(account.c.id).where(account.c.id == account_id))

    def account_named(self, name: str) -> Account | None:
        return self._one(select(account.c.id).where(account.c.name == name))

    def accounts_after(self, name: str, limit: int) -> Sequence[Account]:
        ids = select(account.c.id).where(account.c.name > name).order_by(account.c.name).limit(limit)
        return self._accounts(ids)

    def insert_token(
        self,
        digest: bytes,
        account_id: str,
        now_ms: int,
        expires_ms: int,
        label: str = "",
        scopes: frozenset[Scope] = ALL_SCOPES,
    ) -> None:
        self.connection.execute(
            insert(api_token).values(
                digest=digest,
                account_id=account_id,
                created_ms=now_ms,
                expires_ms=expires_ms,
                label=label,
                scopes=None if scopes == ALL_SCOPES else " ".join(sorted(scopes)),
            )
        )

    def bearer(self, digest: bytes, now_ms: int) -> Bearer | None:
        good = (
            select(
                account.c.id, account.c.name, account_role.c.role, api_token.c.scopes, api_token.c.expires_ms
            )
            .join(account_role, account_role.c.account_id == account.c.id)
            .join(api_token, api_token.c.account_id == account.c.id)
            .where(
                api_token.c.digest == digest,
                api_token.c.expires_ms > now_ms,
                api_token.c.revoked_ms.is_(None),
            )
        )
        rows = self.connection.execute(good).all()
        if not rows:
            return None
        roles = frozenset(Role(row.role) for row in rows)
        owner = Account(id=rows[0].id, name=rows[0].name, roles=roles)
        return Bearer(
            account=owner,
            token_id=token_name(digest),
            expires_ms=rows[0].expires_ms,
            scopes=scopes_from_column(rows[0].scopes),
        )

    def recall(self, account_id: str, request_id: str) -> tuple[bytes, str] | None:
        key = account_id, request_id
        return self.recall_all([key]).get(key)

    def remember(self, account_id: str, request_id: str, fingerprint: bytes, answer: str) -> None:
        self.remember_all([(account_id, request_id, fingerprint, answer)])

    def recall_all(self, asked: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[bytes, str]]:
        """By account and request id: see `recall`."""
        rows = rows_among_pairs(self.beside, request.c.account_id, request.c.request_id, asked)
        return {(row.account_id, row.request_id): (bytes(row.fingerprint), row.answer) for row in rows}

    def remember_all(self, answers: Sequence[tuple[str, str, bytes, str]]) -> None:
        names = ("account_id", "request_id", "fingerprint", "answer")
        insert_rows(self.connection, request, [dict(zip(names, answer, strict=True)) for answer in answers])

    def _one(self, ids: Select[tuple[str]]) -> Account | None:
        found = self._accounts(ids)
        return found[0] if found else None

    def _accounts(self, ids: Select[tuple[str]]) -> list[Account]:
        rows = self.connection.execute(
            select(account.c.id, account.c.name, account_role.c.role)
            .join(account_role, account_role.c.account_id == account.c.id)
            .where(account.c.id.in_(ids))
            .order_by(account.c.name)
        ).all()
        roles: dict[tuple[str, str], set[Role]] = {}
        for row in rows:
            roles.setdefault((row.id, row.name), set()).add(Role(row.role))
        return [Account(id=id_, name=name, roles=frozenset(of)) for (id_, name), of in roles.items()]
