"""What the operator does beside the market's own people: pays out, and looks after the whole."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.host import HostRoom, HostState
from coordinator.domain.job import Job
from coordinator.domain.refusal import Refusal, RefusalCode, invalid, not_found
from coordinator.domain.states import Cause, JobState
from coordinator.services.accounts import account_by_name
from coordinator.services.books import Purse, code_of
from coordinator.services.requests import fingerprint, once
from coordinator.store.ports import Transaction
from coordinator.store.ports_books import hold_id
from ledger import chart
from ledger.entries import Status, adjustment, withdraw
from ledger.money import format_credits
from runtime.ids import derived_uuid

# More than a dispute can have of them; a bill shows each.
REFUNDS_MAX = 100


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


def refund(
    tx: Transaction, caller_id: str, request_id: str, job_id: str, amount_micro: int, reason: str, now_ms: int
) -> tuple[int, int]:
    """What was given back in all, and what the job has cost still. The platform pays."""
    job = tx.job(job_id)
    if job is None:
        raise not_found("job", job_id)

    def make() -> str:
        given = tx.refunds_of([job_id])[job_id]
        left_micro = _cost_micro(tx, job) - sum(each.amount_micro for each in given)
        if amount_micro > left_micro:
            raise invalid("amount_micro", f"at most {left_micro}: so much the job has cost still")
        if len(given) == REFUNDS_MAX:
            raise invalid("job_id", f"a job with fewer than {REFUNDS_MAX} refunds")
        transfer = adjustment(
            transfer_id=derived_uuid("operator refund", caller_id, request_id),
            corrects=hold_id(job_id),
            debit=chart.ADJUSTMENTS,
            credit=chart.wallet(job.account_id),
            amount_micro=amount_micro,
            event_ms=now_ms,
            reason=reason,
            ref=job_id,
        )
        (outcome,) = tx.post([transfer], now_ms)
        if outcome.status is Status.CORRECTION_TOO_LARGE:
            raise invalid("amount_micro", "together no more than was held when the job was submitted")
        assert outcome.status is Status.POSTED, outcome
        event = NewEvent(
            kind=EventKind.REFUNDED,
            account_id=job.account_id,
            text=f"{format_credits(amount_micro)} credits of {job_id} were given back: {reason}",
            cause=Cause.PLATFORM,
        )
        tx.append_events([event], now_ms)
        return str(transfer.id)

    once(tx, caller_id, request_id, fingerprint("refund", job_id, amount_micro, reason), make)
    refunded_micro = sum(each.amount_micro for each in tx.refunds_of([job_id])[job_id])
    return refunded_micro, _cost_micro(tx, job) - refunded_micro


def _cost_micro(tx: Transaction, job: Job) -> int:
    """By the bill: what was charged less what the rule gave back."""
    attempts = tx.attempts_of_jobs([job.id])[job.id]
    credits_ = tx.credits_of([attempt.id for attempt in attempts])
    return job.charged_micro - sum(credit.amount_micro for of in credits_.values() for credit, _, _ in of)


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
