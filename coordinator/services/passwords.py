"""Passwords: set by an operator's invitation, proved at each login, changed by whoever knows the old one.

What is slow, to hash and to verify, is done before and beside: here are only its results.
"""

from dataclasses import dataclass, field

from coordinator.domain.account import Account, Bearer
from coordinator.domain.refusal import Refusal, RefusalCode
from coordinator.services import sessions
from coordinator.services.accounts import NewToken, account_by_name
from coordinator.services.mint import Mint, digest_of
from coordinator.services.requests import fingerprint, once
from coordinator.services.sessions import Issuing, Place, Secrets
from coordinator.store.ports import Transaction

INVITATION_PREFIX = "usance_inv"
INVITATION_MS_DEFAULT = 3 * 86_400_000
# An address where the account was signed in within so long is its own.
OWN_ADDRESS_MS = 90 * 86_400_000


@dataclass(frozen=True, kw_only=True)
class Known:
    """What there is to prove oneself against; nothing where there is no such account."""

    account: Account | None = None
    hash: str | None = field(default=None, repr=False)
    at_home: bool = False


def known(tx: Transaction, account_name: str, address: str, now_ms: int) -> Known:
    account = tx.account_named(account_name)
    if account is None:
        return Known()
    return Known(
        account=account,
        hash=tx.password_of(account.id),
        at_home=tx.was_at(account.id, address, now_ms - OWN_ADDRESS_MS),
    )


def login(
    tx: Transaction,
    issuing: Issuing,
    proved: Known,
    fresh_hash: str | None,
    request_id: str,
    place: Place,
    now_ms: int,
) -> Secrets:
    """`fresh_hash` is of the same password, where the kept one is of an older cost."""
    assert proved.account is not None, "it was proved"
    if tx.password_of(proved.account.id) != proved.hash:
        raise wrong()  # it was changed meanwhile
    if fresh_hash is not None:
        tx.save_password(proved.account.id, proved.hash, fresh_hash, now_ms)
    return sessions.open_one(tx, issuing, proved.account, request_id, place, now_ms)


def wrong() -> Refusal:
    return Refusal(RefusalCode.UNAUTHENTICATED, "the account or the password is not right", is_act=True)


@dataclass(frozen=True, kw_only=True)
class Invite:
    """Whom to invite; 0 is for as long as is usual."""

    account_name: str
    lifetime_ms: int
    # The password and the sessions that there are end now.
    reset: bool


def invite(
    tx: Transaction, mint: Mint, operator: Account, request_id: str, wish: Invite, now_ms: int
) -> NewToken:
    owner = account_by_name(tx, wish.account_name)
    secret = mint.token(INVITATION_PREFIX, operator.id, request_id)

    def make() -> str:
        expires_ms = now_ms + (wish.lifetime_ms or INVITATION_MS_DEFAULT)
        tx.insert_invitation(digest_of(secret), owner.id, expires_ms)
        if wish.reset:
            tx.save_password(owner.id, tx.password_of(owner.id), None, now_ms)
            sessions.end_all(tx, owner.id, now_ms)
        return str(expires_ms)

    content = fingerprint("invitation", owner.id, wish.lifetime_ms, wish.reset)
    return NewToken(token=secret, expires_ms=int(once(tx, operator.id, request_id, content, make)))


def invited(tx: Transaction, secret: str, request_id: str, now_ms: int) -> tuple[Account, bool] | Refusal:
    """Who is invited by it, and whether this request has been answered before."""
    invitation = tx.invitation(digest_of(secret))
    if invitation is None:
        return _not_invited()
    is_again = tx.recall(invitation.account.id, request_id) is not None
    if is_again or (not invitation.is_used and now_ms < invitation.expires_ms):
        return invitation.account, is_again
    return _not_invited()


def accept(
    tx: Transaction,
    issuing: Issuing,
    account: Account,
    secret: str,
    hash_: str,
    request_id: str,
    place: Place,
    now_ms: int,
) -> Secrets:
    """Sets the password, ends what sessions there were, opens one."""
    if tx.recall(account.id, request_id) is None:
        if not tx.use_invitation(digest_of(secret), now_ms):
            raise _not_invited()
        tx.save_password(account.id, tx.password_of(account.id), hash_, now_ms)
        sessions.end_all(tx, account.id, now_ms)
    return sessions.open_one(tx, issuing, account, request_id, place, now_ms)


def is_asked_again(tx: Transaction, account: Account, request_id: str) -> bool:
    """Was this request answered before?"""
    return tx.recall(account.id, request_id) is not None


def change(tx: Transaction, bearer: Bearer, request_id: str, before: str, after: str, now_ms: int) -> None:
    account = bearer.account

    def make() -> str:
        if not tx.save_password(account.id, before, after, now_ms):
            raise old_is_wrong()
        sessions.end_all(tx, account.id, now_ms, but=bearer.token_id)
        return ""

    once(tx, account.id, request_id, fingerprint("password"), make)


def old_is_wrong() -> Refusal:
    return Refusal(
        RefusalCode.FORBIDDEN,
        "the account has no password, or the old one is not right; an operator can send an invitation",
        field="old_password",
        is_act=True,
    )


def _not_invited() -> Refusal:
    return Refusal(
        RefusalCode.UNAUTHENTICATED,
        "the invitation is unknown, used or over; ask the operator for another",
        field="invitation",
    )
