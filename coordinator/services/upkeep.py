"""Passes over what nobody asks about any more: each may be broken off anywhere and done again."""

from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.job import Attempt
from coordinator.domain.metering import Stamp, drift_ms, passed_ms
from coordinator.domain.states import AttemptState, Cause, EndReason
from coordinator.services.attempts import ask_stop, end_attempt
from coordinator.services.vault import UnreadableError, Vault
from coordinator.store.ports import Transaction
from ledger.entries import release
from ledger.money import format_credits
from runtime.ids import derived_uuid

LOOK_MAX = 500
# The longest that a host may take to get a job ready: to pull its image, mostly.
PREPARING_MS_MAX = 6 * 3_600_000


def orphans_once(tx: Transaction, now: Stamp) -> int:
    """Attempts that live on although their host was given up, as when both happened at once: how many.

    The other way about, what a host holds and we do not want is ended by what we say to the host.
    """
    found = tx.attempts_of_lost_hosts()
    for attempt in found:
        end_attempt(tx, attempt, EndReason.HOST_LOST, None, "", now)
    return len(found)


def overdue_once(tx: Transaction, started: Stamp, window_ms: int, after_id: str, now: Stamp) -> str:
    """Attempts that go on for longer than anything can; where the next pass goes on, "" for at the start."""
    attempts = tx.live_attempts(after_id, LOOK_MAX)
    for attempt in attempts:
        _end_overdue(tx, attempt, started, window_ms, now)
    return attempts[-1].id if len(attempts) == LOOK_MAX else ""


def _end_overdue(tx: Transaction, attempt: Attempt, started: Stamp, window_ms: int, now: Stamp) -> None:
    """Whatever its host says or leaves out, by our own clock."""
    meter, had_ms = attempt.meter, passed_ms(attempt.meter.assigned, started, now)
    if attempt.state is AttemptState.PREPARING and had_ms > PREPARING_MS_MAX:
        end_attempt(tx, attempt, EndReason.START_FAILED, None, "it was not ready within six hours", now)
    run_ms_max = min(meter.run_ms_max, meter.run_ms_affordable)
    if attempt.state is AttemptState.RUNNING and (
        had_ms > PREPARING_MS_MAX + run_ms_max + drift_ms(run_ms_max) + window_ms
    ):
        job = tx.job(attempt.job_id)
        assert job is not None, "an attempt has a job"
        ask_stop(tx, job, attempt, EndReason.TIME_LIMIT, now)


def leftovers_once(tx: Transaction, after_job_id: str, now: Stamp) -> tuple[int, str]:
    """Ended jobs that hold money still give it back: how many, and where the next pass goes on.

    There are none: the end and the release are one commit. A fault of ours must not keep a buyer's money.
    """
    left, last = tx.unreleased(after_job_id, LOOK_MAX)
    for job, micro in left:
        transfer = release(
            transfer_id=derived_uuid("leftover", job.id),
            account_id=job.account_id,
            job_id=job.id,
            amount_micro=micro,
            event_ms=now.wall_ms,
        )
        (outcome,) = tx.post([transfer], now.wall_ms)
        assert outcome.ok, outcome
        event = NewEvent(
            kind=EventKind.ENDED,
            job_id=job.id,
            text=f"{format_credits(micro)} credits were still held, and are given back",
            job_state=job.state,
            cause=Cause.PLATFORM,
        )
        tx.append_events([event], now.wall_ms)
        tx.wake(job.id)
    return len(left), last


def reseal_once(tx: Transaction, vault: Vault, after_job_id: str) -> tuple[int, str]:
    """What is sealed with a key that seals no more, anew: how many, and where the next pass goes on."""
    boxes, count = tx.sealed_after(after_job_id, LOOK_MAX), 0
    for job_id, account_id, box in boxes:
        if not vault.is_current(box):
            try:
                tx.reseal(job_id, vault.seal(vault.open(box, account_id), account_id).box)
            except UnreadableError:
                continue  # whoever is to start the job is told
            count += 1
    return count, boxes[-1][0] if len(boxes) == LOOK_MAX else ""


def not_resealed(tx: Transaction, vault: Vault) -> int:
    """How many are sealed with other keys than the one that seals now."""
    count, last, boxes = 0, "", tx.sealed_after("", LOOK_MAX)
    while boxes:
        count += sum(not vault.is_current(box) for _, _, box in boxes)
        last = boxes[-1][0]
        boxes = tx.sealed_after(last, LOOK_MAX)
    return count
