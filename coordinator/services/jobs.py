"""What a buyer does: quote, submit, look, cancel, read the bill."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coordinator.domain.account import Account
from coordinator.domain.event import Event, EventKind, NewEvent
from coordinator.domain.host import Gpu, HostRoom, Isolation
from coordinator.domain.job import (
    BUDGET_MICRO_MAX,
    Attempt,
    GpuRequest,
    Job,
    JobSpec,
    LogChunk,
    LogState,
    LogTotals,
)
from coordinator.domain.matching import Fit, LimitCount, Request, best, fit, why_not
from coordinator.domain.metering import Line, Stamp
from coordinator.domain.pricing import hour_price_micro, run_ms_affordable
from coordinator.domain.refusal import Refusal, RefusalCode, not_found
from coordinator.domain.states import (
    JOB_LIVE,
    JOB_TERMINAL,
    Cause,
    EndReason,
    JobState,
    JobStep,
    end_sentence,
    job_after,
)
from coordinator.services.attempts import ask_stop, finish_job
from coordinator.services.requests import fingerprint, once
from coordinator.store.ports import Transaction
from ledger.entries import Status, hold
from runtime.ids import derived_uuid, new_id

QUEUE_TOPIC = "queue"


@dataclass(frozen=True, kw_only=True)
class Quote:
    room: HostRoom | None
    gpus: tuple[Gpu, ...]
    gpu_hour_price_micro: int
    run_ms_affordable: int
    hosts_considered: int
    limits: Sequence[LimitCount]


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job with its attempts, and in QUEUED why no host has it yet."""

    job: Job
    attempts: Sequence[Attempt]
    limits: Sequence[LimitCount] = ()


@dataclass(frozen=True, kw_only=True)
class BillView:
    job: Job
    attempts: Sequence[tuple[Attempt, Sequence[tuple[Line, str]]]]

    @property
    def final(self) -> bool:
        return self.job.state in JOB_TERMINAL

    @property
    def released_micro(self) -> int:
        return self.job.spec.budget_micro - self.job.charged_micro if self.final else 0


@dataclass(frozen=True, kw_only=True)
class LogPage:
    """Output from one place on, and what comes after it."""

    attempt_id: str = ""
    chunks: Sequence[LogChunk] = ()
    totals: LogTotals | None = None
    complete: bool = False
    # The attempt's output ends here, and the job has a later attempt.
    next_attempt_id: str = ""
    # Nothing will ever come after this.
    finished: bool = False


def offers(
    tx: Transaction, buyer: Account, gpus: GpuRequest, isolation_min: Isolation, price_micro_max: int
) -> list[tuple[HostRoom, Fit]]:
    """Hosts that could take such a job of this buyer now, cheapest first."""
    spec = JobSpec(
        name="any",
        image="any",
        command=(),
        gpus=replace(gpus, count=max(1, gpus.count)),
        budget_micro=BUDGET_MICRO_MAX,
        isolation_min=isolation_min,
        gpu_hour_price_micro_max=price_micro_max,
        run_ms_max=0,
    )
    request = Request(
        spec=spec, account_id=buyer.id, account_name=buyer.name, budget_left_micro=BUDGET_MICRO_MAX
    )
    found = [
        (room, fitting)
        for room in tx.rooms()
        for model in sorted(room.host.terms.prices)
        if isinstance(fitting := fit(request, _only(room, model)), Fit)
    ]
    return sorted(found, key=lambda o: (o[1].gpu_hour_price_micro, o[0].host.id, o[1].gpus[0].model))


def _only(room: HostRoom, model: str) -> HostRoom:
    """The host as if it sold this model alone: each model is an offer of its own."""
    terms = room.host.terms
    only = replace(terms, prices={model: terms.prices[model]})
    return replace(room, host=replace(room.host, terms=only))


def quote(tx: Transaction, buyer: Account, spec: JobSpec) -> Quote:
    request = Request(
        spec=spec, account_id=buyer.id, account_name=buyer.name, budget_left_micro=spec.budget_micro
    )
    rooms = tx.rooms()
    choice = best(request, rooms)
    if choice is None:
        return Quote(
            room=None,
            gpus=(),
            gpu_hour_price_micro=0,
            run_ms_affordable=0,
            hosts_considered=len(rooms),
            limits=why_not(request, rooms),
        )
    room, fitting = choice
    whole = hour_price_micro(fitting.gpu_hour_price_micro, len(fitting.gpus))
    return Quote(
        room=room,
        gpus=fitting.gpus,
        gpu_hour_price_micro=fitting.gpu_hour_price_micro,
        run_ms_affordable=min(run_ms_affordable(whole, spec.budget_micro), spec.run_ms_max),
        hosts_considered=len(rooms),
        limits=(),
    )


def submit(tx: Transaction, buyer: Account, request_id: str, spec: JobSpec, now_ms: int) -> JobView:
    """The job and its hold are one commit: a job exists if and only if its money does."""

    def make() -> str:
        job_id = new_id("job")
        transfer = hold(
            transfer_id=derived_uuid("hold", job_id),
            account_id=buyer.id,
            job_id=job_id,
            amount_micro=spec.budget_micro,
            event_ms=now_ms,
        )
        (outcome,) = tx.post([transfer], now_ms)
        if outcome.status is Status.INSUFFICIENT_FUNDS:
            raise Refusal(
                RefusalCode.INSUFFICIENT_FUNDS,
                "the wallet holds less than the budget",
                field="spec.budget_micro",
                remedy=f"at most {tx.balances([buyer.id])[buyer.id].wallet_micro} micro-credits now",
            )
        assert outcome.status is Status.POSTED, outcome
        tx.insert_job(
            Job(
                id=job_id,
                account_id=buyer.id,
                account_name=buyer.name,
                spec=spec,
                state=JobState.QUEUED,
                cause=None,
                detail="waits for a host",
                submitted_ms=now_ms,
                queued_ms=now_ms,
                ended_ms=0,
                charged_micro=0,
                retries_used=0,
                exit_code=None,
            )
        )
        event = NewEvent(
            kind=EventKind.SUBMITTED,
            job_id=job_id,
            text="the job was taken in and its budget is held",
            job_state=JobState.QUEUED,
            cause=Cause.BUYER,
        )
        tx.append_events([event], now_ms)
        tx.wake(QUEUE_TOPIC, job_id)
        return job_id

    job_id = once(tx, buyer.id, request_id, fingerprint("submit", *_parts(spec)), make)
    # Why no host has it nobody knows yet: it has not been looked at. To ask all hosts here, in the writer's
    # thread, would hold up everybody.
    return JobView(job=owned_job(tx, buyer, job_id), attempts=tx.attempts_of_jobs([job_id])[job_id])


def owned_job(tx: Transaction, buyer: Account, job_id: str) -> Job:
    """What one may not see does not exist."""
    job = tx.job(job_id)
    if job is None or job.account_id != buyer.id:
        raise not_found("job", job_id)
    return job


def view(tx: Transaction, buyer: Account, job_id: str) -> JobView:
    job = owned_job(tx, buyer, job_id)
    attempts = tx.attempts_of_jobs([job.id])[job.id]
    if job.state is not JobState.QUEUED:
        return JobView(job=job, attempts=attempts)
    return JobView(job=job, attempts=attempts, limits=why_not(request_of(job, attempts), tx.rooms()))


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
        if live and live[0].reported_end is not None:
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

    return view(tx, buyer, once(tx, buyer.id, request_id, fingerprint("cancel", job_id), make))


def bill(tx: Transaction, buyer: Account, job_id: str) -> BillView:
    job = owned_job(tx, buyer, job_id)
    attempts = tx.attempts_of_jobs([job_id])[job_id]
    lines = tx.lines_of([attempt.id for attempt in attempts])
    return BillView(job=job, attempts=[(attempt, lines[attempt.id]) for attempt in attempts])


def events(
    tx: Transaction, buyer: Account, job_id: str, after: int, limit: int
) -> tuple[Sequence[Event], bool]:
    """Those after the given one, and whether the job has ended: then no others will follow."""
    job = owned_job(tx, buyer, job_id)
    return tx.events_after(job.id, after, limit), job.state in JOB_TERMINAL


def log_page(
    tx: Transaction, buyer: Account, job_id: str, attempt_id: str, offset: int, limit: int
) -> LogPage:
    """What an attempt wrote from `offset` on; of the first attempt if none is named."""
    job = owned_job(tx, buyer, job_id)
    attempts = tx.attempts_of_jobs([job_id])[job_id]
    if not attempts and not attempt_id:
        return LogPage(finished=job.state in JOB_TERMINAL)
    places = [i for i, attempt in enumerate(attempts) if attempt.id == (attempt_id or attempts[0].id)]
    if not places:
        raise not_found("attempt", attempt_id)
    attempt, later = attempts[places[0]], attempts[places[0] + 1 :]
    chunks = tx.log_after(attempt.id, offset, limit)
    ended = attempt.is_over and not chunks
    return LogPage(
        attempt_id=attempt.id,
        chunks=chunks,
        totals=attempt.log_totals,
        complete=attempt.log_state is LogState.COMPLETE,
        next_attempt_id=later[0].id if ended and later else "",
        finished=ended and not later and job.state in JOB_TERMINAL,
    )


def _parts(spec: JobSpec) -> list[object]:
    return [
        spec.name,
        spec.image,
        *spec.command,
        len(spec.command),
        *sorted(spec.env.items()),
        spec.gpus,
        int(spec.isolation_min),
        spec.gpu_hour_price_micro_max,
        spec.budget_micro,
        spec.run_ms_max,
        spec.stop_grace_ms,
        spec.retries_max,
        spec.queue_ms_max,
        spec.memory_bytes,
        spec.cpu_milli,
    ]
