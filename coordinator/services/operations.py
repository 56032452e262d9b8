"""What the operator does beside the market's own people: pays out, and looks after the whole."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.host import HostRoom, HostState
from coordinator.domain.refusal import Refusal, RefusalCode
from coordinator.domain.states import Cause, JobState
from coordinator.services.accounts import account_by_name
from coordinator.services.books import Purse, code_of
from coordinator.services.requests import fingerprint, once
from coordinator.store.ports import Transaction
from ledger.entries import Status, withdraw
from ledger.money import format_credits
from runtime.ids import derived_uuid


@dataclass(frozen=True, kw_only=True)
class Payout:
    account_name: str
    purse: Purse
    amount_micro: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Health:
    database: str
    hosts: Mapping[HostState, int]
    jobs: Mapping[JobState, int]
    queued_since_ms: int
    transfers: int
    transfers_sealed: int
    sum_micro: int


def pay_out(tx: Transaction, caller_id: str, request_id: str, payout: Payout, now_ms: int) -> int:
    """What the purse holds afterwards. The transfer's id derives from the request's."""
    owner = account_by_name(tx, payout.account_name)
    code = code_of(payout.purse, owner)

    def held_micro() -> int:
        balances = tx.balances([owner.id])[owner.id]
        return balances.wallet_micro if payout.purse is Purse.WALLET else balances.earnings_micro

    def make() -> str:
        transfer = withdraw(
            transfer_id=derived_uuid("withdraw", caller_id, request_id),
            account_id=owner.id,
            amount_micro=payout.amount_micro,
            event_ms=now_ms,
            reason=payout.reason,
        )
        (outcome,) = tx.post([replace(transfer, debit=code)], now_ms)
        if outcome.status is Status.INSUFFICIENT_FUNDS:
            raise Refusal(
                RefusalCode.INSUFFICIENT_FUNDS,
                f"less than that is in the {payout.purse} of {owner.name}",
                field="amount_micro",
                remedy=f"at most {format_credits(held_micro())} credits now",
            )
        assert outcome.status is Status.POSTED, outcome
        event = NewEvent(
            kind=EventKind.WITHDRAWN,
            account_id=owner.id,
            text=f"{format_credits(payout.amount_micro)} credits of the {payout.purse} were paid out: "
            f"{payout.reason}",
            cause=Cause.PLATFORM,
        )
        tx.append_events([event], now_ms)
        return str(transfer.id)

    content = fingerprint("withdraw", owner.id, payout.purse, payout.amount_micro, payout.reason)
    once(tx, caller_id, request_id, content, make)
    return held_micro()


def all_hosts(tx: Transaction, state: HostState | None, after_id: str, limit: int) -> Sequence[HostRoom]:
    rooms = (room for room in tx.rooms() if room.host.id > after_id)
    return [room for room in rooms if state is None or room.host.state is state][:limit]


def health(tx: Transaction) -> Health:
    vitals = tx.vitals()
    return Health(
        database=vitals.database,
        hosts=Counter(room.host.state for room in tx.rooms()),
        jobs=vitals.jobs,
        queued_since_ms=vitals.queued_since_ms,
        transfers=vitals.transfers,
        transfers_sealed=vitals.transfers_sealed,
        sum_micro=sum(micro for _, micro in tx.trial_balance()),
    )
