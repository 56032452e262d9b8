"""What both the buyer's and the host's messages do to a job and its attempt."""

from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.job import Attempt, Job, LogState, OnHostLoss
from coordinator.domain.metering import Stamp
from coordinator.domain.pricing import run_ms_affordable
from coordinator.domain.states import (
    CREDITED,
    ENDS,
    JOB_TERMINAL,
    AttemptState,
    AttemptStep,
    Cause,
    EndReason,
    JobStep,
    attempt_after,
    end_sentence,
    job_after,
    job_step_at_end,
)
from coordinator.domain.values import changed
from coordinator.services.credits import give_back
from coordinator.services.hosts import OFFERS_TOPIC, note_end
from coordinator.services.restoration import end_reason_since
from coordinator.store.ports import Transaction
from ledger.entries import release
from runtime.ids import derived_uuid

# No job is begun for less; see `limits.budget_needed`.
RUN_MS_MIN = 1_000
_SPENT = "what is left of its budget would not pay for another try"
_HOST_GONE = frozenset({EndReason.HOST_LOST, EndReason.HOST_FORGOT, EndReason.REPLACED})


def ask_stop(tx: Transaction, job: Job, attempt: Attempt, reason: EndReason, now: Stamp) -> Attempt:
    """From this moment nothing more is charged. Asking again changes nothing: the first reason stands.

    But a buyer's word stands over a reason that would let the job begin again elsewhere.
    """
    if attempt.state is AttemptState.ENDED:
        return attempt
    if attempt.stop_reason is not None:
        if ENDS[reason].cause is not Cause.BUYER or ENDS[attempt.stop_reason].cause is Cause.BUYER:
            return attempt
        overruled = changed(attempt, stop_reason=reason)
        _must(tx.save_attempt(attempt, overruled))
        return overruled
    after = changed(
        attempt,
        state=attempt_after(attempt.state, AttemptStep.STOP),
        stop_reason=reason,
        meter=changed(attempt.meter, stop_asked=now),
        detail=f"is being stopped: {ENDS[reason].sentence}",
    )
    _must(tx.save_attempt(attempt, after))
    event = NewEvent(
        kind=EventKind.STOP_ASKED,
        job_id=job.id,
        attempt_id=attempt.id,
        text=f"the end was asked for: {ENDS[reason].sentence}",
        job_state=job.state,
        cause=ENDS[reason].cause,
    )
    tx.append_events([event], now.wall_ms)
    tx.wake(attempt.host_id, job.id)
    return after


def end_reason(attempt: Attempt, reported: EndReason) -> EndReason:
    """Why it ended. Once its end was asked for that is why, however the host got there, or never answered:
    a job that its buyer has cancelled does not begin again elsewhere because its host was lost in between.
    """
    if attempt.stop_reason is not None:
        return attempt.stop_reason
    meter = attempt.meter
    if reported is EndReason.PAID_THROUGH:
        if attempt.paid_through_ms >= meter.run_ms_max:
            return EndReason.TIME_LIMIT
        if attempt.paid_through_ms >= meter.run_ms_affordable:
            return EndReason.BUDGET_SPENT
    return reported


def end_attempt(
    tx: Transaction, attempt: Attempt, reported: EndReason, exit_code: int | None, detail: str, now: Stamp
) -> None:
    """Over, with a cause; its job goes back to the queue or ends with it."""
    job = tx.job(attempt.job_id)
    assert job is not None, "an attempt has a job"
    reason = end_reason_since(tx, attempt, end_reason(attempt, reported))
    sentence = end_sentence(reason, exit_code, detail)
    # Who is gone sends no more; who never told an end never tells how much there was.
    no_more_output = reported in _HOST_GONE or attempt.reported_end is None
    after = changed(
        attempt,
        state=attempt_after(attempt.state, AttemptStep.END),
        end_reason=reason,
        cause=ENDS[reason].cause,
        exit_code=exit_code,
        detail=sentence,
        log_state=LogState.INCOMPLETE
        if no_more_output and attempt.log_state is LogState.OPEN
        else attempt.log_state,
    )
    _must(tx.save_attempt(attempt, after))
    host_at_fault = ENDS[reason].cause is Cause.HOST
    note_end(tx, attempt.host_id, host_at_fault=host_at_fault)
    if reason in CREDITED:
        give_back(tx, job, after, ENDS[reason].sentence, now)
    retries = 0 if job.spec.on_host_loss is OnHostLoss.FAIL else job.spec.retries_max - job.retries_used
    spent = is_spent(attempt, job)
    step = job_step_at_end(reason, exit_code, 0 if spent else retries)
    ended = NewEvent(
        kind=EventKind.ATTEMPT_ENDED,
        job_id=job.id,
        attempt_id=attempt.id,
        text=sentence,
        job_state=job.state,
        cause=ENDS[reason].cause,
    )
    tx.append_events([ended], now.wall_ms)
    job_next = changed(
        job,
        state=job_after(job.state, step),
        cause=ENDS[reason].cause,
        detail=f"{sentence}; {_SPENT}" if spent and ENDS[reason].cause is not Cause.BUYER else sentence,
        exit_code=exit_code,
        retries_used=job.retries_used + (step is JobStep.REQUEUE),
    )
    if step is JobStep.REQUEUE:
        _must(tx.save_job(job, changed(job_next, cause=None, exit_code=None, queued_ms=now.wall_ms)))
        again = NewEvent(
            kind=EventKind.REQUEUED,
            job_id=job.id,
            text=f"waits for another host (retry {job_next.retries_used} of {job.spec.retries_max})",
            job_state=job_next.state,
            cause=Cause.PLATFORM,
        )
        tx.append_events([again], now.wall_ms)
    else:
        finish_job(tx, job, changed(job_next, ended_ms=now.wall_ms), now.wall_ms)
    tx.wake(attempt.host_id, job.id, OFFERS_TOPIC)


def is_spent(attempt: Attempt, job: Job) -> bool:
    """What is left of the budget would not buy a second of another try at this one's price."""
    left_micro = job.spec.budget_micro - job.charged_micro
    return run_ms_affordable(attempt.meter.hour_price_micro, left_micro) < RUN_MS_MIN


def finish_job(tx: Transaction, before: Job, after: Job, now_ms: int) -> None:
    """The job is over: what was not used goes back to the wallet in the same commit."""
    assert after.state in JOB_TERMINAL, after
    _must(tx.save_job(before, after))
    rest_micro = after.spec.budget_micro - after.charged_micro
    if rest_micro:
        transfer = release(
            transfer_id=derived_uuid("release", after.id),
            account_id=after.account_id,
            job_id=after.id,
            amount_micro=rest_micro,
            event_ms=now_ms,
        )
        tx.post_surely([transfer], now_ms)
    event = NewEvent(
        kind=EventKind.ENDED, job_id=after.id, text=after.detail, job_state=after.state, cause=after.cause
    )
    tx.append_events([event], now_ms)
    tx.wake(after.id)


def _must(saved: bool) -> None:
    """Within one writer nothing can come between a read and its write; if it did, nothing is done."""
    if not saved:
        raise LostRaceError


class LostRaceError(Exception):
    """The row changed between reading and writing; the whole transaction is to be tried again."""
