"""Which account somebody is whom the operator's identity provider vouches for."""

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.domain.account import Account, Role
from coordinator.domain.login import Subject
from coordinator.domain.oidc import Visitor, second_name
from coordinator.domain.refusal import Refusal, RefusalCode, not_found
from coordinator.services.accounts import account_by_name, create_account
from coordinator.services.requests import fingerprint, once
from coordinator.services.tokens import TOKENS_TOPIC
from coordinator.store.ports import Transaction
from runtime.ids import derived_uuid

# Who asks for an account that makes itself.
_BY_ITSELF = "oidc"


@dataclass(frozen=True, kw_only=True)
class Came:
    """Somebody with a good token of the provider's."""

    issuer: str
    visitor: Visitor


def accounts_of(tx: Transaction, came: Sequence[Came]) -> list[Account | None]:
    """None: the subject is not bound."""
    return [tx.account_of_subject(one.issuer, one.visitor.subject) for one in came]


def make(tx: Transaction, came: Came, roles: frozenset[Role], now_ms: int) -> Account:
    """For one who came for the first time. Of two at once, the second finds what the first has made."""
    issuer, visitor = came.issuer, came.visitor
    known = tx.account_of_subject(issuer, visitor.subject)
    if known is not None:
        return known
    name = visitor.name
    if tx.account_named(name) is not None:
        name = second_name(name, visitor.subject)
    # Released, and made again: another account.
    request_id = str(derived_uuid("oidc", issuer, visitor.subject, now_ms))
    account = create_account(tx, _BY_ITSELF, request_id, name, roles, now_ms)
    tx.bind_subject(issuer, visitor.subject, account.id, now_ms)
    return account


def bind(
    tx: Transaction,
    operator: Account,
    request_id: str,
    account_name: str,
    who: tuple[str, str],
    now_ms: int,
) -> None:
    """`who` is an issuer and a subject of it."""
    owner = account_by_name(tx, account_name)

    def do() -> str:
        if not tx.bind_subject(*who, owner.id, now_ms):
            known = tx.account_of_subject(*who)
            whose = "another account" if known is None else known.name
            raise Refusal(
                RefusalCode.NAME_TAKEN, f"the subject is {whose} already; release it first", field="subject"
            )
        return ""

    once(tx, operator.id, request_id, fingerprint("bind", owner.id, *who), do)


def release(tx: Transaction, operator: Account, request_id: str, who: tuple[str, str]) -> str:
    """Whose it was."""

    def do() -> str:
        owner = tx.account_of_subject(*who)
        if owner is None:
            raise not_found("subject", who[1])
        tx.release_subject(*who)
        tx.wake(TOKENS_TOPIC)
        return owner.name

    return once(tx, operator.id, request_id, fingerprint("release", *who), do)


def unbound() -> Refusal:
    return Refusal(
        RefusalCode.UNAUTHENTICATED,
        "the identity provider knows you, but you are no account here: ask the operator to bind you to one",
    )


def page(tx: Transaction, start: int, limit: int) -> Sequence[Subject]:
    return tx.subjects(start, limit)
