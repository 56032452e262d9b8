"""An account's own tokens: a further one, which there are, and the end of one."""

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.domain.account import Account, Bearer, Role, Scope, Token, token_name
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.refusal import Refusal, RefusalCode, invalid, not_found
from coordinator.domain.states import Cause
from coordinator.services.accounts import TOKEN_MS_DEFAULT, TOKEN_PREFIX, NewToken, account_by_name, named
from coordinator.services.mint import Mint, digest_of
from coordinator.services.requests import fingerprint, once
from coordinator.store.ports import Transaction

# Rung when one is revoked.
TOKENS_TOPIC = "tokens"
# More than anybody can keep apart; each is a door.
TOKENS_MAX = 100


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a further token is to be; 0 and no scopes stand for as much as may be."""

    label: str
    lifetime_ms: int
    scopes: frozenset[Scope] = frozenset()


def create_own(
    tx: Transaction,
    mint: Mint,
    bearer: Bearer,
    request_id: str,
    wish: Wish,
    now_ms: int,
) -> NewToken:
    """It can't outlive the one it was asked for with, or open more: who steals one has no more."""
    owner, label, lifetime_ms, scopes = bearer.account, wish.label, wish.lifetime_ms, wish.scopes
    token = mint.token(TOKEN_PREFIX, owner.id, request_id)

    def make() -> str:
        if scopes - bearer.scopes:
            raise Refusal(
                RefusalCode.FORBIDDEN,
                f"the token that you ask with has no {', '.join(sorted(scopes - bearer.scopes))}",
                field="scopes",
            )
        left_ms = bearer.expires_ms - now_ms
        if lifetime_ms > left_ms:
            raise invalid("lifetime_ms", f"at most {left_ms}: no longer than what you ask with")
        if len(tx.tokens_before(owner.id, now_ms, None, TOKENS_MAX)) == TOKENS_MAX:
            raise Refusal(
                RefusalCode.FORBIDDEN,
                f"the account has {TOKENS_MAX} tokens that are good; revoke one that is not needed any more",
            )
        expires_ms = now_ms + min(lifetime_ms or TOKEN_MS_DEFAULT, left_ms)
        tx.insert_token(digest_of(token), owner.id, now_ms, expires_ms, label, scopes or bearer.scopes)
        _tell(tx, EventKind.TOKEN_CREATED, owner, f"made a token for itself: {label or 'no label'}", now_ms)
        return str(expires_ms)

    expires = once(
        tx, owner.id, request_id, fingerprint("own token", label, lifetime_ms, *named(scopes)), make
    )
    return NewToken(token=token, expires_ms=int(expires))


def page(
    tx: Transaction,
    caller: Account,
    account_name: str,
    good_at_ms: int | None,
    before: tuple[int, str] | None,
    limit: int,
) -> Sequence[Token]:
    return tx.tokens_before(_whose(tx, caller, account_name).id, good_at_ms, before, limit)


def revoke(
    tx: Transaction, caller: Account, account_name: str, request_id: str, token_id: str, now_ms: int
) -> Token:
    owner = _whose(tx, caller, account_name)

    def make() -> str:
        if tx.revoke_token(owner.id, token_id, now_ms) is None:
            raise not_found("token", token_id)
        _tell(tx, EventKind.TOKEN_REVOKED, owner, f"{token_id} was revoked by {caller.name}", now_ms)
        tx.wake(TOKENS_TOPIC)
        return token_id

    once(tx, caller.id, request_id, fingerprint("revoke", owner.id, token_id), make)
    revoked = tx.revoke_token(owner.id, token_id, now_ms)
    assert revoked is not None, "a token is never deleted"
    return revoked


def is_token(token: Token, secret: str) -> bool:
    """Is this the token that the secret belongs to?"""
    return token.id == token_name(digest_of(secret))


def _whose(tx: Transaction, caller: Account, account_name: str) -> Account:
    if account_name in {"", caller.name}:
        return caller
    if Role.OPERATOR not in caller.roles:
        raise Refusal(RefusalCode.FORBIDDEN, "only an operator may look at the tokens of another account")
    return account_by_name(tx, account_name)


def _tell(tx: Transaction, kind: EventKind, owner: Account, text: str, now_ms: int) -> None:
    tx.append_events([NewEvent(kind=kind, account_id=owner.id, text=text, cause=Cause.PLATFORM)], now_ms)
