"""What an account has paid and earned. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from coordinator.domain.account import Account
from coordinator.domain.job import Attempt, Job
from coordinator.domain.pricing import Charge, charge_between
from coordinator.domain.states import JOB_TERMINAL
from coordinator.services.credits import paid_by_seller
from coordinator.services.hosts import existing
from coordinator.store.ports import Transaction
from ledger import chart
from ledger.entries import Statement

# The year 10000: later than any time there is.
TIME_MS_MAX = 253_402_300_800_000
# One answer looks at no more attempts of a host.
HOST_ATTEMPTS_MAX = 5_000


class Purse(StrEnum):
    WALLET = "wallet"
    EARNINGS = "earnings"


@dataclass(frozen=True, kw_only=True)
class Period:
    """From `since_ms` on and before `until_ms`."""

    since_ms: int = 0
    until_ms: int = TIME_MS_MAX


@dataclass(frozen=True, kw_only=True)
class JobCost:
    job: Job
    credited_micro: int
    refunded_micro: int
    billed_ms: int

    @property
    def held_micro(self) -> int:
        if self.job.state in JOB_TERMINAL:
            return 0
        return self.job.spec.budget_micro - self.job.charged_micro


@dataclass(frozen=True, kw_only=True)
class AttemptEarning:
    attempt: Attempt
    charge: Charge
    returned_micro: int


def statement(
    tx: Transaction, account: Account, purse: Purse, period: Period, after_seq: int, limit: int
) -> Statement:
    code = code_of(purse, account)
    return tx.statement(code, after_seq, limit, period.since_ms, period.until_ms)


def costs(tx: Transaction, account: Account, period: Period, before_id: str, limit: int) -> Sequence[JobCost]:
    jobs = tx.jobs_taken_in(account.id, period.since_ms, period.until_ms, before_id, limit)
    attempts = tx.attempts_of_jobs([job.id for job in jobs])
    credits_ = tx.credits_of([attempt.id for of in attempts.values() for attempt in of])
    refunds = tx.refunds_of([job.id for job in jobs])
    return [
        JobCost(
            job=job,
            refunded_micro=sum(refund.amount_micro for refund in refunds[job.id]),
            credited_micro=sum(
                credit.amount_micro for attempt in attempts[job.id] for credit, _, _ in credits_[attempt.id]
            ),
            billed_ms=sum(attempt.meter.billed_ms for attempt in attempts[job.id]),
        )
        for job in jobs
    ]


def earnings(
    tx: Transaction, seller_id: str, period: Period, before_id: str, limit: int, host_id: str = ""
) -> Sequence[AttemptEarning]:
    """Newest first; of all the seller's hosts, or of one."""
    attempts = tx.attempts_sold(seller_id, period.since_ms, period.until_ms, before_id, limit, host_id)
    credits_ = tx.credits_of([attempt.id for attempt in attempts])
    return [
        AttemptEarning(
            attempt=attempt,
            charge=charge_between(
                attempt.meter.hour_price_micro, attempt.meter.fee_ppm, 0, attempt.meter.billed_ms
            ),
            returned_micro=sum(
                credit.earning_micro
                for credit, transfer_id, _ in credits_[attempt.id]
                if paid_by_seller(attempt, credit, transfer_id)
            ),
        )
        for attempt in attempts
    ]


def earned_by_host(tx: Transaction, host_id: str, since_ms: int) -> tuple[int, int]:
    """How many attempts were made on it since, and what they have earned its seller so far."""
    host = existing(tx, host_id)
    found = earnings(tx, host.account_id, Period(since_ms=since_ms), "", HOST_ATTEMPTS_MAX, host_id)
    return len(found), sum(one.charge.earning_micro - one.returned_micro for one in found)


def code_of(purse: Purse, account: Account) -> str:
    match purse:
        case Purse.WALLET:
            return chart.wallet(account.id)
        case Purse.EARNINGS:
            return chart.earnings(account.id)
        case _ as never:
            assert_never(never)
