"""Sessions of people who signed in: opened, renewed by a token that is good once, listed, ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from coordinator.domain.account import Account, Role
from coordinator.domain.login import LoginSession
from coordinator.domain.refusal import Refusal, RefusalCode, not_found
from coordinator.services.accounts import ACCESS_PREFIX, account_by_name
from coordinator.services.mint import Mint, digest_of
from coordinator.services.requests import fingerprint, once
from coordinator.services.tokens import TOKENS_TOPIC
from coordinator.store.ports import Transaction
from runtime.ids import new_id

# By which secret scanners know it.
REFRESH_PREFIX = "usance_ref"
SESSION_PREFIX = "sess"
SESSIONS_MAX = 100
SHOWN_MAX = 200


@dataclass(frozen=True, kw_only=True)
class Issuing:
    """What sessions are made with, and how long they and their access tokens are good."""

    mint: Mint
    access_ms: int
    session_ms: int


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where somebody signs in."""

    label: str
    address: str


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Shown once; the store keeps digests."""

    session_id: str
    access_token: str = field(repr=False)
    access_expires_ms: int
    refresh_token: str = field(repr=False)
    expires_ms: int


def open_one(
    tx: Transaction, issuing: Issuing, account: Account, request_id: str, place: Place, now_ms: int
) -> Secrets:
    """For somebody who has just proved to be the account."""

    def make() -> str:
        good = tx.sessions_of(account.id, now_ms, SESSIONS_MAX)
        if len(good) == SESSIONS_MAX:
            tx.end_session(min(good, key=lambda one: (one.refreshed_ms, one.id)).id, now_ms)
            tx.wake(TOKENS_TOPIC)
        new = LoginSession(
            id=new_id(SESSION_PREFIX),
            account_id=account.id,
            label=place.label,
            address=place.address,
            created_ms=now_ms,
            refreshed_ms=now_ms,
            expires_ms=now_ms + issuing.session_ms,
            request_id=request_id,
        )
        tx.insert_session(new)
        _give(tx, issuing, new, now_ms)
        return new.id

    session_id = once(tx, account.id, request_id, fingerprint("session", place.label), make)
    opened = tx.session(session_id)
    assert opened is not None, "a session is never deleted"
    return _secrets(issuing, opened, generation=1)


def renew(
    tx: Transaction, issuing: Issuing, refresh_token: str, request_id: str, now_ms: int
) -> Secrets | Refusal:
    """The next pair. A refusal is answered, not raised: that a token came twice ends the session, and stays.

    Whoever asks again under the id under which the newest pair was asked for did not hear the answer. A thief
    has the token, but not the id of the request that used it.
    """
    session_id, generation = tx.refreshes(digest_of(refresh_token)) or ("", 0)
    session = tx.session(session_id)
    if session is None or not session.is_good(now_ms):
        return _refused()
    is_newest = generation == session.generation
    if is_newest and tx.renew_session(session_id, generation, request_id, now_ms):
        renewed = tx.session(session_id)
        assert renewed is not None, "it was there"
        return _give(tx, issuing, renewed, now_ms)
    if is_newest:
        return _refused()  # somebody ended or renewed it just now, and not in this market's one writer
    if generation == session.generation - 1 and request_id == session.request_id:
        return _secrets(issuing, session, session.generation)
    end(tx, session_id, now_ms)
    return Refusal(
        RefusalCode.UNAUTHENTICATED,
        "the refresh token was used before, so somebody else has it: the session was ended; sign in again",
        is_act=True,
    )


def page(
    tx: Transaction, caller: Account, account_name: str, good_at_ms: int | None
) -> Sequence[LoginSession]:
    return tx.sessions_of(_whose(tx, caller, account_name).id, good_at_ms, SHOWN_MAX)


def revoke(
    tx: Transaction, caller: Account, account_name: str, request_id: str, session_id: str, now_ms: int
) -> LoginSession:
    owner = _whose(tx, caller, account_name)

    def make() -> str:
        session = tx.session(session_id)
        if session is None or session.account_id != owner.id:
            raise not_found("session", session_id)
        end(tx, session_id, now_ms)
        return session_id

    once(tx, caller.id, request_id, fingerprint("revoke session", owner.id, session_id), make)
    revoked = tx.session(session_id)
    assert revoked is not None, "a session is never deleted"
    return revoked


def end(tx: Transaction, session_id: str, now_ms: int) -> None:
    tx.end_session(session_id, now_ms)
    tx.wake(TOKENS_TOPIC)


def end_all(tx: Transaction, account_id: str, now_ms: int, but: str = "") -> None:
    for session in tx.sessions_of(account_id, now_ms, 2 * SESSIONS_MAX):
        if session.id != but:
            end(tx, session.id, now_ms)


def _give(tx: Transaction, issuing: Issuing, session: LoginSession, now_ms: int) -> Secrets:
    secrets = _secrets(issuing, session, session.generation)
    tx.insert_session_tokens(
        session.id,
        session.generation,
        digest_of(secrets.access_token),
        secrets.access_expires_ms,
        digest_of(secrets.refresh_token),
        now_ms,
    )
    return secrets


def _secrets(issuing: Issuing, session: LoginSession, generation: int) -> Secrets:
    """The same again for the same pair: only who has the mint's key can tell them."""
    began_ms = session.created_ms if generation == 1 else session.refreshed_ms
    return Secrets(
        session_id=session.id,
        access_token=issuing.mint.token(ACCESS_PREFIX, session.id, str(generation)),
        access_expires_ms=min(began_ms + issuing.access_ms, session.expires_ms),
        refresh_token=issuing.mint.token(REFRESH_PREFIX, session.id, str(generation)),
        expires_ms=session.expires_ms,
    )


def _whose(tx: Transaction, caller: Account, account_name: str) -> Account:
    if account_name in {"", caller.name}:
        return caller
    if Role.OPERATOR not in caller.roles:
        raise Refusal(RefusalCode.FORBIDDEN, "only an operator may look at the sessions of another account")
    return account_by_name(tx, account_name)


def _refused() -> Refusal:
    return Refusal(RefusalCode.UNAUTHENTICATED, "the session is unknown, over or revoked; sign in again")
