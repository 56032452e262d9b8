"""Gives back what the host's fault made worthless, by correcting transfers."""

from uuid import UUID

from coordinator.domain.credit import Credit, credit_back
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.job import Attempt, Job
from coordinator.domain.metering import Stamp
from coordinator.domain.states import Cause
from coordinator.store.ports import Transaction
from ledger import chart
from ledger.entries import Status, Transfer, adjustment, refund
from ledger.money import format_credits
from runtime.ids import derived_uuid


def give_back(tx: Transaction, job: Job, attempt: Attempt, reason: str, now: Stamp) -> int:
    """How much the buyer gets back for this attempt."""
    meter = attempt.meter
    lines = tx.lines_of([attempt.id])[attempt.id]
    total_micro = 0
    for credit, corrected in credit_back(meter.hour_price_micro, meter.fee_ppm, lines):
        transfer = _refund(job, attempt, credit, UUID(corrected), reason, now)
        (outcome,) = tx.post([transfer], now.wall_ms)
        if outcome.status is Status.INSUFFICIENT_FUNDS:
            # The seller has withdrawn it already: the buyer has it back all the same, from the platform.
            transfer = _adjustment(job, attempt, credit, UUID(corrected), reason, now)
            (outcome,) = tx.post([transfer], now.wall_ms)
        assert outcome.ok, outcome
        tx.insert_credit(attempt.id, credit, str(transfer.id), reason)
        total_micro += credit.amount_micro
    if total_micro:
        event = NewEvent(
            kind=EventKind.CREDITED,
            job_id=job.id,
            attempt_id=attempt.id,
            text=f"{format_credits(total_micro)} credits are given back: {reason}",
            job_state=job.state,
            cause=Cause.HOST,
        )
        tx.append_events([event], now.wall_ms)
    return total_micro


def paid_by_seller(attempt: Attempt, credit: Credit, transfer_id: str) -> bool:
    """Or did the platform pay the seller's part too, because the earnings were gone?"""
    return transfer_id == str(_refund_id(attempt, credit))


def _refund_id(attempt: Attempt, credit: Credit) -> UUID:
    return derived_uuid("refund", attempt.id, attempt.epoch, credit.number)


def _refund(job: Job, attempt: Attempt, credit: Credit, corrects: UUID, reason: str, now: Stamp) -> Transfer:
    return refund(
        transfer_id=_refund_id(attempt, credit),
        corrects=corrects,
        job_id=job.id,
        seller_id=attempt.seller_account_id,
        account_id=job.account_id,
        seller_micro=credit.earning_micro,
        fee_micro=credit.fee_micro,
        event_ms=now.wall_ms,
        reason=reason,
    )


def _adjustment(
    job: Job, attempt: Attempt, credit: Credit, corrects: UUID, reason: str, now: Stamp
) -> Transfer:
    return adjustment(
        transfer_id=derived_uuid("credit", attempt.id, attempt.epoch, credit.number),
        corrects=corrects,
        debit=chart.ADJUSTMENTS,
        credit=chart.wallet(job.account_id),
        amount_micro=credit.amount_micro,
        event_ms=now.wall_ms,
        reason=f"{reason}; the seller's earnings were withdrawn already",
        ref=job.id,
    )
