"""What a buyer does with a job: submit, look, cancel, extend."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from coordinator.domain.account import Account
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.hours import open_ms_left
from coordinator.domain.index import Index
from coordinator.domain.job import (
    BUDGET_MICRO_MAX,
    RUN_MS_MAX,
    Attempt,
    Job,
)
from coordinator.domain.matching import LimitCount, Request, explain
from coordinator.domain.metering import Stamp
from coordinator.domain.pricing import run_ms_affordable
from coordinator.domain.refusal import Refusal, RefusalCode, not_found
from coordinator.domain.states import (
    ENDS,
    JOB_LIVE,
    Cause,
    EndReason,
    JobState,
    JobStep,
    end_sentence,
    job_after,
)
from coordinator.domain.turns import queue_places
from coordinator.services.attempts import LostRaceError, ask_stop, finish_job
from coordinator.services.caps import check_more
from coordinator.services.requests import fingerprint, once
from coordinator.store.ports import Transaction
from ledger.entries import Status, hold
from ledger.money import charge_micro, format_credits
from runtime.ids import derived_uuid

QUEUE_LOOK_MAX = 1_000


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job with its attempts; in QUEUED also its place, and where it was asked for, why no host has it."""

    job: Job
    attempts: Sequence[Attempt]
    limits: Sequence[LimitCount] = ()
    cheapest_change: str = ""
    queue_place: int = 0
    # For people, what the buyer should see now; only of a job that was just taken in.
    notices: Sequence[str] = ()


def owned_job(tx: Transaction, buyer: Account, job_id: str) -> Job:
    """What one may not see does not exist."""
    job = tx.job(job_id)
    if job is None or job.account_id != buyer.id:
        raise not_found("job", job_id)
    return job


def view(tx: Transaction, buyer: Account, job_id: str) -> JobView:
    job = owned_job(tx, buyer, job_id)
    place = _queue_place(tx, job) if job.state is JobState.QUEUED else 0
    return JobView(job=job, attempts=tx.attempts_of_jobs([job.id])[job.id], queue_place=place)


def with_reasons(waiting: JobView, index: Index) -> JobView:
    """Why no host has it, and what would help."""
    why = explain(request_of(waiting.job, waiting.attempts), index)
    return replace(waiting, limits=why.limits, cheapest_change=why.change.words if why.change else "")


def _queue_place(tx: Transaction, job: Job) -> int:
    """As it will be looked at in the next pass; 0 if it is too far back to say."""
    queue = tx.queue(QUEUE_LOOK_MAX)
    waiting = [(other, request_of(other, ())) for other in queue]
    now_ms = max((other.queued_ms for other in queue), default=0)
    return queue_places(waiting, tx.held_by_buyers(), {}, now_ms).get(job.id, 0)


def page(tx: Transaction, buyer: Account, *, live_only: bool, before_id: str, limit: int) -> list[JobView]:
    jobs = tx.jobs_of(buyer.id, live_only=live_only, before_id=before_id, limit=limit)
    attempts = tx.attempts_of_jobs([job.id for job in jobs])
    return [JobView(job=job, attempts=attempts[job.id]) for job in jobs]


def request_of(job: Job, attempts: Sequence[Attempt]) -> Request:
    """A host that failed this job for its own cause does not get it again."""
    return Request(
        spec=job.spec,
        account_id=job.account_id,
        account_name=job.account_name,
        budget_left_micro=job.spec.budget_micro - job.charged_micro,
        hosts_failed=frozenset(a.host_id for a in attempts if a.cause is Cause.HOST),
    )


def cancel(tx: Transaction, buyer: Account, request_id: str, job_id: str, now: Stamp) -> JobView:
    def make() -> str:
        job = owned_job(tx, buyer, job_id)
        if job.state not in JOB_LIVE:
            raise Refusal(RefusalCode.JOB_ENDED, f"the job has ended: it is {job.state}", field="job_id")
        live = [a for a in tx.attempts_of_jobs([job_id])[job_id] if a.end_reason is None]
        end = live[0].reported_end if live else None
        if end is not None and ENDS[end.reason].cause is Cause.BUYER:
            # It has ended by itself; what is awaited is only the last of its usage.
            return job_id
        if live:
            ask_stop(tx, job, live[0], EndReason.CANCELLED, now)
        else:
            after = replace(
                job,
                state=job_after(job.state, JobStep.CANCEL),
                cause=Cause.BUYER,
                detail=end_sentence(EndReason.CANCELLED, None),
                ended_ms=now.wall_ms,
            )
            finish_job(tx, job, after, now.wall_ms)
        return job_id

    done = once(tx, buyer.id, request_id, fingerprint("cancel", job_id), make)
    return view(tx, buyer, done)


def extend(
    tx: Transaction,
    buyer: Account,
    request_id: str,
    job_id: str,
    budget_micro_more: int,
    run_ms_more: int,
    now_ms: int,
) -> JobView:
    """More money, held at once, or more time; an attempt that runs has both from now on."""

    def make() -> str:
        job = owned_job(tx, buyer, job_id)
        live = [a for a in tx.attempts_of_jobs([job_id])[job_id] if a.end_reason is None]
        if job.state not in JOB_LIVE or any(attempt.stop_reason for attempt in live):
            raise Refusal(
                RefusalCode.JOB_ENDED, "the job has ended, or is being stopped already", field="job_id"
            )
        spec = replace(
            job.spec,
            budget_micro=_sum(
                "budget_micro_more", job.spec.budget_micro, budget_micro_more, BUDGET_MICRO_MAX
            ),
            run_ms_max=_sum("run_ms_more", job.spec.run_ms_max, run_ms_more, RUN_MS_MAX),
        )
        if run_ms_more:
            _check_terms(tx, live, job.spec.run_ms_max, run_ms_more, now_ms)
        if budget_micro_more:
            check_more(tx, buyer.id, job.submitted_ms, budget_micro_more, "budget_micro_more")
            transfer_id = derived_uuid("extend", buyer.id, request_id)
            _hold(tx, buyer, job_id, transfer_id, budget_micro_more, "budget_micro_more", now_ms)
        after = replace(job, spec=spec)
        saved = tx.save_job(job, after) and all(
            tx.save_attempt(attempt, extended(attempt, after)) for attempt in live
        )
        if not saved:
            raise LostRaceError
        event = NewEvent(
            kind=EventKind.EXTENDED,
            job_id=job_id,
            text=f"the budget is now {format_credits(spec.budget_micro)} credits and the time limit "
            f"{spec.run_ms_max // 1000} s",
            job_state=job.state,
            cause=Cause.BUYER,
        )
        tx.append_events([event], now_ms)
        tx.wake(job_id, *(attempt.host_id for attempt in live))
        return job_id

    content = fingerprint("extend", job_id, budget_micro_more, run_ms_more)
    return view(tx, buyer, once(tx, buyer.id, request_id, content, make))


def _check_terms(
    tx: Transaction, live: Sequence[Attempt], run_ms_max: int, run_ms_more: int, now_ms: int
) -> None:
    """The seller's longest job and hours hold for more time as they did for what was asked at first."""
    for attempt in live:
        host = tx.host(attempt.host_id)
        assert host is not None, "no attempt is without its host"
        most_ms = host.terms.run_ms_max or RUN_MS_MAX
        left_ms = open_ms_left(host.terms.hours, now_ms)
        if left_ms is not None:
            most_ms = min(most_ms, attempt.run_ms_reported + left_ms)
        if run_ms_max + run_ms_more > most_ms:
            raise Refusal(
                RefusalCode.INVALID_FIELD,
                "run_ms_more: longer than the seller of the job's host lets a job run",
                field="run_ms_more",
                remedy=f"at most {max(0, most_ms - run_ms_max)}",
            )


def extended(attempt: Attempt, job: Job) -> Attempt:
    """What earlier attempts were charged is gone; all else of the budget is this one's."""
    meter = attempt.meter
    of_this_micro = charge_micro(meter.hour_price_micro, meter.billed_ms)
    left_micro = job.spec.budget_micro - (job.charged_micro - of_this_micro)
    meter = replace(
        meter,
        run_ms_affordable=run_ms_affordable(meter.hour_price_micro, left_micro),
        run_ms_max=job.spec.run_ms_max,
    )
    return replace(attempt, meter=meter, warned=False)


def _sum(field: str, now: int, more: int, most: int) -> int:
    if now + more > most:
        raise Refusal(
            RefusalCode.INVALID_FIELD, f"{field}: too much", field=field, remedy=f"at most {most - now}"
        )
    return now + more


def _hold(
    tx: Transaction,
    buyer: Account,
    job_id: str,
    transfer_id: UUID,
    amount_micro: int,
    field: str,
    now_ms: int,
) -> None:
    transfer = hold(
        transfer_id=transfer_id,
        account_id=buyer.id,
        job_id=job_id,
        amount_micro=amount_micro,
        event_ms=now_ms,
    )
    (outcome,) = tx.post([transfer], now_ms)
    if outcome.status is Status.INSUFFICIENT_FUNDS:
        raise too_little(tx.balances([buyer.id])[buyer.id].wallet_micro, field)
    assert outcome.status is Status.POSTED, outcome


def too_little(wallet_micro: int, field: str) -> Refusal:
    return Refusal(
        RefusalCode.INSUFFICIENT_FUNDS,
        "the wallet holds less than that",
        field=field,
        remedy=f"at most {format_credits(wallet_micro)} credits now",
    )
