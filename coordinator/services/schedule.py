"""One pass over the queue: who can be placed gets a host."""

from collections.abc import Mapping
from dataclasses import replace

from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.host import Host
from coordinator.domain.index import Index
from coordinator.domain.job import Attempt, Job
from coordinator.domain.matching import Placement, run_pass
from coordinator.domain.metering import Meter, Stamp
from coordinator.domain.pricing import run_ms_affordable
from coordinator.domain.states import (
    AttemptState,
    Cause,
    JobStep,
    job_after,
)
from coordinator.domain.turns import Lane, Served
from coordinator.services.attempts import LostRaceError, finish_job
from coordinator.services.hosts import OFFERS_TOPIC
from coordinator.services.jobs import QUEUE_LOOK_MAX, request_of
from coordinator.store.ports import Transaction
from runtime.ids import new_id


def pass_once(
    tx: Transaction, fee_ppm: int, window_ms: int, served: Mapping[Lane, Served], now: Stamp
) -> Mapping[Lane, Served]:
    """Place what can be placed; which lanes have been served, for the next pass to know.

    Jobs that waited longer than they would are ended first.
    """
    queue = [job for job in tx.queue(QUEUE_LOOK_MAX) if not _expire(tx, job, now)]
    if not queue:
        return served
    attempts = tx.attempts_of_jobs([job.id for job in queue])
    waiting = [(job, request_of(job, attempts[job.id])) for job in queue]
    outcome = run_pass(
        waiting, Index(tx.rooms()), held=tx.held_by_buyers(), served=served, now_ms=now.wall_ms
    )
    jobs = {job.id: job for job in queue}
    for placement in outcome.placements:
        job = jobs[placement.job_id]
        _assign(tx, job, placement, len(attempts[job.id]) + 1, fee_ppm, window_ms, now)
    return outcome.served


def _expire(tx: Transaction, job: Job, now: Stamp) -> bool:
    if not job.spec.queue_ms_max or now.wall_ms - job.queued_ms < job.spec.queue_ms_max:
        return False
    after = replace(
        job,
        state=job_after(job.state, JobStep.EXPIRE),
        cause=Cause.BUYER,
        detail="no host was found within the time that the job was to wait",
        ended_ms=now.wall_ms,
    )
    finish_job(tx, job, after, now.wall_ms)
    return True


def _assign(
    tx: Transaction, job: Job, placement: Placement, epoch: int, fee_ppm: int, window_ms: int, now: Stamp
) -> None:
    """Price, fee and GPUs are locked here."""
    attempt = _new_attempt(job, placement, epoch, fee_ppm, window_ms, now)
    after = replace(
        job,
        state=job_after(job.state, JobStep.ASSIGN),
        detail=f"{placement.host.id} prepares it",
    )
    if not (tx.save_job(job, after) and tx.insert_attempt(attempt)):
        raise LostRaceError
    event = NewEvent(
        kind=EventKind.ASSIGNED,
        job_id=job.id,
        attempt_id=attempt.id,
        text=_words(placement.host, attempt),
        job_state=after.state,
        cause=Cause.PLATFORM,
    )
    tx.append_events([event], now.wall_ms)
    tx.wake(placement.host.id, job.id, OFFERS_TOPIC)


def _new_attempt(
    job: Job, placement: Placement, epoch: int, fee_ppm: int, window_ms: int, now: Stamp
) -> Attempt:
    attempt_id = new_id("att")
    affordable_ms = run_ms_affordable(placement.hour_price_micro, job.spec.budget_micro - job.charged_micro)
    return Attempt(
        id=attempt_id,
        job_id=job.id,
        epoch=epoch,
        host_id=placement.host.id,
        seller_account_id=placement.host.account_id,
        isolation=placement.host.facts.isolation,
        gpus=placement.gpus,
        state=AttemptState.ASSIGNED,
        paid_through_ms=min(window_ms, affordable_ms, job.spec.run_ms_max),
        meter=Meter(
            attempt_id=attempt_id,
            epoch=epoch,
            hour_price_micro=placement.hour_price_micro,
            fee_ppm=fee_ppm,
            run_ms_affordable=affordable_ms,
            run_ms_max=job.spec.run_ms_max,
            gpu_uuids=frozenset(gpu.uuid for gpu in placement.gpus),
            vram_bytes_max=max(gpu.vram_bytes for gpu in placement.gpus),
            assigned=now,
        ),
    )


def _words(host: Host, attempt: Attempt) -> str:
    simulated = " (SIMULATED)" if any(gpu.simulated for gpu in attempt.gpus) else ""
    return f"{host.id} gets it with {len(attempt.gpus)} x {attempt.gpus[0].model}{simulated}"
