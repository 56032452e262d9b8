"""Accounts, tokens, and the money that comes in from outside."""

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.domain.account import ALL_SCOPES, Account, Balances, Bearer, Role, Scope
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.refusal import Refusal, RefusalCode, invalid, not_found
from coordinator.domain.states import Cause
from coordinator.services.mint import Mint, digest_of
from coordinator.services.requests import fingerprint, once
from coordinator.store.ports import Transaction
from ledger import chart
from ledger.entries import Status, deposit
from ledger.money import format_credits
from runtime.ids import derived_uuid, new_id

# The account that makes all others.
OPERATOR_NAME = "operator"
TOKEN_PREFIX = "usance_tok"  # noqa: S105 - a prefix by which secret scanners know our tokens
ACCESS_PREFIX = "usance_acc"  # of a session, likewise
TOKEN_MS_DEFAULT = 30 * 86_400_000


@dataclass(frozen=True, kw_only=True)
class NewToken:
    """Shown once; the store keeps its digest."""

    token: str
    expires_ms: int


def create_account(
    tx: Transaction, caller_id: str, request_id: str, name: str, roles: frozenset[Role], now_ms: int
) -> Account:
    def make() -> str:
        account = Account(id=new_id("acct"), name=name, roles=roles)
        if not tx.insert_account(account, now_ms):
            raise Refusal(RefusalCode.NAME_TAKEN, f"an account named {name!r} exists", field="name")
        tx.open_accounts([chart.wallet(account.id), chart.earnings(account.id)], now_ms)
        roles_text = ", ".join(sorted(roles))
        _tell(tx, EventKind.ACCOUNT_CREATED, account.id, f"account {name} was made: {roles_text}", now_ms)
        return account.id

    content = fingerprint("account", name, *sorted(roles))
    account = tx.account(once(tx, caller_id, request_id, content, make))
    assert account is not None, "an account is never deleted"
    return account


def account_by_name(tx: Transaction, name: str) -> Account:
    account = tx.account_named(name)
    if account is None:
        raise not_found("account", name)
    return account


def accounts_page(tx: Transaction, after: str, limit: int) -> Sequence[tuple[Account, Balances]]:
    accounts = tx.accounts_after(after, limit)
    balances = tx.balances([account.id for account in accounts])
    return [(account, balances[account.id]) for account in accounts]


def wallet(tx: Transaction, account_id: str) -> Balances:
    return tx.balances([account_id])[account_id]


def create_token(
    tx: Transaction,
    mint: Mint,
    caller_id: str,
    request_id: str,
    account_name: str,
    lifetime_ms: int,
    now_ms: int,
    scopes: frozenset[Scope] = ALL_SCOPES,
) -> NewToken:
    owner = account_by_name(tx, account_name)
    token = mint.token(TOKEN_PREFIX, caller_id, request_id)

    def make() -> str:
        expires_ms = now_ms + (lifetime_ms or TOKEN_MS_DEFAULT)
        tx.insert_token(digest_of(token), owner.id, now_ms, expires_ms, scopes=scopes)
        _tell(tx, EventKind.TOKEN_CREATED, owner.id, "a token was made", now_ms)
        return str(expires_ms)

    expires = once(
        tx, caller_id, request_id, fingerprint("token", owner.id, lifetime_ms, *named(scopes)), make
    )
    return NewToken(token=token, expires_ms=int(expires))


def authenticate(tx: Transaction, given: Sequence[tuple[str, int]]) -> list[Bearer | Refusal]:
    """Whose tokens these are, at those times. One that many calls come with is looked up once, at the last
    of them."""
    times = dict(sorted(given))
    owners = {token: _bearer(tx, token, now_ms) for token, now_ms in times.items()}
    return [owners[token] or unknown() for token, _ in given]


def _bearer(tx: Transaction, token: str, now_ms: int) -> Bearer | None:
    digest = digest_of(token)
    if token.startswith(ACCESS_PREFIX):
        return tx.session_bearer(digest, now_ms)
    return tx.bearer(digest, now_ms)


def known(found: Bearer | Refusal) -> Bearer:
    if isinstance(found, Refusal):
        raise found
    return found


def unknown() -> Refusal:
    return Refusal(RefusalCode.UNAUTHENTICATED, "the token is unknown, expired or revoked")


def credit(
    tx: Transaction,
    caller_id: str,
    request_id: str,
    account_name: str,
    amount_micro: int,
    reason: str,
    now_ms: int,
) -> Balances:
    """A deposit: issuance to wallet. The transfer's id derives from the request's."""
    owner = account_by_name(tx, account_name)

    def make() -> str:
        transfer = deposit(
            transfer_id=derived_uuid("deposit", caller_id, request_id),
            account_id=owner.id,
            amount_micro=amount_micro,
            reason=reason,
            event_ms=now_ms,
        )
        (outcome,) = tx.post([transfer], now_ms)
        if outcome.status is Status.BALANCE_OUT_OF_RANGE:
            raise invalid("amount_micro", "so much that the wallet can still be counted")
        assert outcome.status is Status.POSTED, outcome
        text = f"{format_credits(amount_micro)} credits came in: {reason}"
        _tell(tx, EventKind.DEPOSITED, owner.id, text, now_ms)
        return str(transfer.id)

    once(tx, caller_id, request_id, fingerprint("deposit", owner.id, amount_micro, reason), make)
    return wallet(tx, owner.id)


def named(scopes: frozenset[Scope]) -> list[Scope]:
    """None for all: so it was before there were any."""
    return [] if scopes == ALL_SCOPES else sorted(scopes)


def _tell(tx: Transaction, kind: EventKind, account_id: str, text: str, now_ms: int) -> None:
    tx.append_events([NewEvent(kind=kind, account_id=account_id, text=text, cause=Cause.PLATFORM)], now_ms)
