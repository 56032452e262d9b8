"""What matching decided, written down: jobs get their hosts, or have waited long enough."""

from collections.abc import Sequence

from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.host import Host
from coordinator.domain.job import Attempt, Job
from coordinator.domain.matching import Placement
from coordinator.domain.metering import Meter, Stamp
from coordinator.domain.pricing import run_ms_affordable
from coordinator.domain.states import (
    AttemptState,
    Cause,
    JobState,
    JobStep,
    job_after,
)
from coordinator.domain.values import changed
from coordinator.services.attempts import LostRaceError, finish_job
from coordinator.services.hosts import OFFERS_TOPIC
from coordinator.store.ports import Transaction
from runtime.ids import new_id


def expire(tx: Transaction, job_ids: Sequence[str], now: Stamp) -> None:
    """They waited longer than they would."""
    for job in tx.jobs(job_ids).values():
        if job.state is not JobState.QUEUED or not job.spec.queue_ms_max:
            continue
        after = changed(
            job,
            state=job_after(job.state, JobStep.EXPIRE),
            cause=Cause.BUYER,
            detail="no host was found within the time that the job was to wait",
            ended_ms=now.wall_ms,
        )
        finish_job(tx, job, after, now.wall_ms)


def assign(
    tx: Transaction, placements: Sequence[Placement], fee_ppm: int, window_ms: int, now: Stamp
) -> dict[str, tuple[Job, Attempt]]:
    """Price, fee and GPUs are locked here. By job; left out is what is not as who decided took it to be."""
    jobs = tx.jobs([placement.job_id for placement in placements])
    made: dict[str, tuple[Job, Attempt, Placement]] = {}
    for placement in placements:
        job = jobs.get(placement.job_id)
        if job is not None and job.state is JobState.QUEUED:
            attempt = _new_attempt(job, placement, fee_ppm, window_ms, now)
            made[attempt.id] = job, attempt, placement
    for attempt_id in tx.insert_attempts([attempt for _, attempt, _ in made.values()]):
        del made[attempt_id]
    pairs = [
        (
            job,
            changed(
                job,
                state=job_after(job.state, JobStep.ASSIGN),
                detail=f"{placement.host.id} prepares it",
            ),
        )
        for job, _, placement in made.values()
    ]
    if not tx.save_jobs(pairs):
        raise LostRaceError
    events = [
        NewEvent(
            kind=EventKind.ASSIGNED,
            job_id=job.id,
            attempt_id=attempt.id,
            text=_words(placement.host, attempt),
            job_state=JobState.STARTING,
            cause=Cause.PLATFORM,
        )
        for job, attempt, placement in made.values()
    ]
    tx.append_events(events, now.wall_ms)
    for job, attempt, _ in made.values():
        tx.wake(attempt.host_id, job.id, OFFERS_TOPIC)
    return {job.id: (job, attempt) for job, attempt, _ in made.values()}


def _new_attempt(job: Job, placement: Placement, fee_ppm: int, window_ms: int, now: Stamp) -> Attempt:
    attempt_id = new_id("att")
    # Each attempt before it ended with the job in the queue again.
    epoch = job.retries_used + 1
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
