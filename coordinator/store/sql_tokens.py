"""An account's tokens in SQL. A token's name is its prefix and the first bytes of its digest."""

import re
from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, Row, and_, bindparam, or_, select, update

from coordinator.domain.account import (
    ALL_SCOPES,
    TOKEN_NAME_PREFIX,
    TOKEN_NAMED_BYTES,
    Scope,
    Token,
    token_name,
)
from coordinator.domain.act import Act
from coordinator.store.bulk import insert_rows
from coordinator.store.sql_part import SqlPart
from coordinator.store.tables_trust import act, api_token

_NAME = re.compile(r"tok_[0-9a-f]{16}", re.ASCII)


class SqlTokens(SqlPart):
    def tokens_before(
        self, account_id: str, good_at_ms: int | None, before: tuple[int, str] | None, limit: int
    ) -> Sequence[Token]:
        of = api_token.c
        query = (
            select(api_token)
            .where(of.account_id == account_id)
            .order_by(of.created_ms.desc(), of.digest.desc())
            .limit(limit)
        )
        if good_at_ms is not None:
            query = query.where(of.expires_ms > good_at_ms, of.revoked_ms.is_(None))
        if before is not None:
            created_ms, token_id = before
            first, _ = _digests(token_id)
            query = query.where(
                or_(of.created_ms < created_ms, and_(of.created_ms == created_ms, of.digest < first))
            )
        return [_token(row) for row in self.connection.execute(query)]

    def save_token_uses(self, uses: Mapping[bytes, int]) -> None:
        if uses:
            statement = update(api_token).where(api_token.c.digest == bindparam("of"))
            values = [{"of": digest, "last_used_ms": used_ms} for digest, used_ms in uses.items()]
            self.connection.execute(statement, values)

    def append_acts(self, acts: Sequence[Act]) -> None:
        insert_rows(self.connection, act, [vars(one) for one in acts])

    def acts_before(self, who: str, since_ms: int, before_id: str, limit: int) -> Sequence[Act]:
        query = select(act).where(act.c.happened_ms >= since_ms).order_by(act.c.id.desc()).limit(limit)
        if who:
            query = query.where(act.c.who == who)
        if before_id:
            query = query.where(act.c.id < before_id)
        return [Act(**row) for row in self.connection.execute(query).mappings()]

    def revoke_token(self, account_id: str, token_id: str, now_ms: int) -> Token | None:
        if not _NAME.fullmatch(token_id):
            return None
        first, last = _digests(token_id)
        one: ColumnElement[bool] = and_(
            api_token.c.account_id == account_id, api_token.c.digest.between(first, last)
        )
        self.connection.execute(
            update(api_token).where(one, api_token.c.revoked_ms.is_(None)).values(revoked_ms=now_ms)
        )
        row = self.connection.execute(select(api_token).where(one)).one_or_none()
        return None if row is None else _token(row)


def scopes_from_column(text: str | None) -> frozenset[Scope]:
    return ALL_SCOPES if text is None else frozenset(map(Scope, text.split()))


def _digests(token_id: str) -> tuple[bytes, bytes]:
    """The least and the greatest digest that gives this name."""
    named = bytes.fromhex(token_id.removeprefix(TOKEN_NAME_PREFIX))
    rest = 32 - TOKEN_NAMED_BYTES
    return named + bytes(rest), named + b"\xff" * rest


def _token(row: Row[tuple[object, ...]]) -> Token:
    return Token(
        id=token_name(bytes(row.digest)),
        label=row.label,
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
        revoked_ms=row.revoked_ms or 0,
        scopes=scopes_from_column(row.scopes),
        last_used_ms=row.last_used_ms or 0,
    )
