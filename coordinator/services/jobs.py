"""What a buyer does: quote, submit, look, cancel, read the bill."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

from coordinator.domain.account import Account
from coordinator.domain.credit import Credit
from coordinator.domain.event import Event, EventKind, NewEvent
from coordinator.domain.host import Gpu, HostRoom, Isolation
from coordinator.domain.job import (
    BUDGET_MICRO_MAX,
    RUN_MS_MAX,
    Attempt,
    GpuRequest,
    HostRequest,
    Job,
    JobSpec,
    LogChunk,
    LogState,
    LogTotals,
)
from coordinator.domain.matching import Fit, LimitCount, Request, best, explain, fit
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
from coordinator.domain.turns import queue_places
from coordinator.services.attempts import LostRaceError, ask_stop, finish_job
from coordinator.services.hosts import QUEUE_TOPIC
from coordinator.services.requests import fingerprint, once
from coordinator.store.ports import Transaction
from ledger.entries import Status, hold
from ledger.money import charge_micro, format_credits
from runtime.ids import derived_uuid, new_id

QUEUE_LOOK_MAX = 1_000


class OfferOrder(StrEnum):
    """In what order offers come."""

    PRICE = "price"
    RELIABILITY = "reliability"
    VRAM = "vram"
    COUNT = "count"


@dataclass(frozen=True, kw_only=True)
class Quote:
    room: HostRoom | None
    gpus: tuple[Gpu, ...]
    gpu_hour_price_micro: int
    run_ms_affordable: int
    hosts_considered: int
    limits: Sequence[LimitCount]
    cheapest_change: str = ""


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job with its attempts; in QUEUED also why no host has it, what would help, and its place."""

    job: Job
    attempts: Sequence[Attempt]
    limits: Sequence[LimitCount] = ()
    cheapest_change: str = ""
    queue_place: int = 0


@dataclass(frozen=True, kw_only=True)
class BillPart:
    """What one attempt cost, and what of it went back; each with its ledger transfer."""

    attempt: Attempt
    lines: Sequence[tuple[Line, str]]
    credits: Sequence[tuple[Credit, str, str]]


@dataclass(frozen=True, kw_only=True)
class BillView:
    job: Job
    attempts: Sequence[BillPart]

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


@dataclass(frozen=True, kw_only=True)
class OfferFilter:
    gpus: GpuRequest
    host: HostRequest
    isolation_min: Isolation
    gpu_hour_price_micro_max: int
    order: OfferOrder


def offers(tx: Transaction, buyer: Account, wanted: OfferFilter) -> list[tuple[HostRoom, Fit]]:
    """Hosts that could take such a job of this buyer now."""
    spec = JobSpec(
        name="any",
        image="any",
        command=(),
        gpus=replace(wanted.gpus, count=max(1, wanted.gpus.count)),
        host=wanted.host,
        budget_micro=BUDGET_MICRO_MAX,
        isolation_min=wanted.isolation_min,
        gpu_hour_price_micro_max=wanted.gpu_hour_price_micro_max,
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
    return sorted(found, key=lambda offer: _ORDERS[wanted.order](*offer))


# Ties go to the cheaper, then by id, so that the order is the same each time.
_ORDERS: dict[OfferOrder, Callable[[HostRoom, Fit], tuple[int, int, str]]] = {
    OfferOrder.PRICE: lambda room, f: (f.gpu_hour_price_micro, 0, room.host.id),
    OfferOrder.RELIABILITY: lambda room, f: (
        -room.host.reliability_ppm,
        f.gpu_hour_price_micro,
        room.host.id,
    ),
    OfferOrder.VRAM: lambda room, f: (-f.gpus[0].vram_bytes, f.gpu_hour_price_micro, room.host.id),
    OfferOrder.COUNT: lambda room, f: (-len(room.free), f.gpu_hour_price_micro, room.host.id),
}


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
        why = explain(request, rooms)
        return Quote(
            room=None,
            gpus=(),
            gpu_hour_price_micro=0,
            run_ms_affordable=0,
            hosts_considered=len(rooms),
            limits=why.limits,
            cheapest_change=why.change.words if why.change else "",
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
        _hold(tx, buyer, job_id, derived_uuid("hold", job_id), spec.budget_micro, "spec.budget_micro", now_ms)
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

    content = fingerprint("submit", *_parts(spec))
    return view(tx, buyer, once(tx, buyer.id, request_id, content, make))


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
    why = explain(request_of(job, attempts), tx.rooms())
    return JobView(
        job=job,
        attempts=attempts,
        limits=why.limits,
        cheapest_change=why.change.words if why.change else "",
        queue_place=_queue_place(tx, job),
    )


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
        if budget_micro_more:
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
        raise Refusal(
            RefusalCode.INSUFFICIENT_FUNDS,
            "the wallet holds less than that",
            field=field,
            remedy=f"at most {format_credits(tx.balances([buyer.id])[buyer.id].wallet_micro)} credits now",
        )
    assert outcome.status is Status.POSTED, outcome


def bill(tx: Transaction, buyer: Account, job_id: str) -> BillView:
    job = owned_job(tx, buyer, job_id)
    attempts = tx.attempts_of_jobs([job_id])[job_id]
    ids = [attempt.id for attempt in attempts]
    lines, credits_ = tx.lines_of(ids), tx.credits_of(ids)
    return BillView(
        job=job,
        attempts=[
            BillPart(attempt=attempt, lines=lines[attempt.id], credits=credits_[attempt.id])
            for attempt in attempts
        ],
    )


def events(
    tx: Transaction, buyer: Account, job_id: str, after: int, limit: int
) -> tuple[Sequence[Event], bool]:
    """Those after the given one, and whether the job has ended: then no others will follow."""
    job = owned_job(tx, buyer, job_id)
    return tx.events_after(job.id, after, limit), job.state in JOB_TERMINAL


def log_tail(tx: Transaction, buyer: Account, job_id: str, tail_bytes: int) -> tuple[str, int]:
    """Where the last so many bytes of the latest attempt begin."""
    attempts = tx.attempts_of_jobs([owned_job(tx, buyer, job_id).id])[job_id]
    if not attempts:
        return "", 0
    return attempts[-1].id, max(0, attempts[-1].log_offset - tail_bytes)


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
