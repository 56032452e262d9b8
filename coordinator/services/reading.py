"""What a buyer reads of a job: its bill, its events, its output."""

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.domain.account import Account
from coordinator.domain.archive import Part
from coordinator.domain.credit import Credit, Refund
from coordinator.domain.event import Event
from coordinator.domain.job import (
    Attempt,
    Job,
    LogChunk,
    LogState,
    LogTotals,
)
from coordinator.domain.metering import Line
from coordinator.domain.refusal import Refusal, RefusalCode, not_found
from coordinator.domain.states import (
    JOB_TERMINAL,
)
from coordinator.services.jobs import owned_job
from coordinator.store.ports import Transaction


@dataclass(frozen=True, kw_only=True)
class BillPlace:
    """A line of a job's bill: its attempt's epoch and its number; zeros are before the first."""

    epoch: int = 0
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class BillPart:
    """What one attempt cost, and what of it went back; each with its ledger transfer."""

    attempt: Attempt
    lines: Sequence[tuple[Line, str]]
    credits: Sequence[tuple[Credit, str, str]]


@dataclass(frozen=True, kw_only=True)
class BillView:
    """A page of a bill: the lines that come next, with what went back of them, and all else whole."""

    job: Job
    attempts: Sequence[BillPart]
    credited_micro: int
    # There are more lines, after the last of these.
    more: bool
    refunds: Sequence[Refund] = ()

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


def bill(tx: Transaction, buyer: Account, job_id: str, after: BillPlace, limit: int) -> BillView:
    job = owned_job(tx, buyer, job_id)
    attempts = tx.attempts_of_jobs([job_id])[job_id]
    lines: dict[str, list[tuple[Line, str]]] = {attempt.id: [] for attempt in attempts}
    found = tx.lines_after(job_id, after.epoch, after.number, limit + 1)
    if job.is_over and job.charged_micro:
        _must_be_here(tx, job_id, Part.RECORDS)
    for attempt_id, line, transfer_id in found[:limit]:
        lines[attempt_id].append((line, transfer_id))
    credits_ = tx.credits_of(list(lines))
    return BillView(
        job=job,
        attempts=[
            BillPart(attempt=attempt, lines=lines[attempt.id], credits=credits_[attempt.id])
            for attempt in attempts
        ],
        credited_micro=sum(credit.amount_micro for of in credits_.values() for credit, _, _ in of),
        refunds=tx.refunds_of([job_id])[job_id],
        more=len(found) > limit,
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


def log_since(tx: Transaction, buyer: Account, job_id: str, since_at_ms: int) -> tuple[str, int]:
    """Where the output begins that came in since then; where it ends, if none did."""
    attempts = tx.attempts_of_jobs([owned_job(tx, buyer, job_id).id])[job_id]
    for attempt in attempts:
        offset = tx.log_offset_since(attempt.id, since_at_ms)
        if offset is not None:
            return attempt.id, offset
    return (attempts[-1].id, attempts[-1].log_offset) if attempts else ("", 0)


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
    if ended and offset < attempt.log_offset:
        _must_be_here(tx, job_id, Part.OUTPUT)
    return LogPage(
        attempt_id=attempt.id,
        chunks=chunks,
        totals=attempt.log_totals,
        complete=attempt.log_state is LogState.COMPLETE,
        next_attempt_id=later[0].id if ended and later else "",
        finished=ended and not later and job.state in JOB_TERMINAL,
    )


def _must_be_here(tx: Transaction, job_id: str, part: Part) -> None:
    """Who asks for what has left is told where it is."""
    for one in tx.archived([job_id]).get(job_id, ()):
        if one.part is part:
            raise Refusal(
                RefusalCode.NOT_FOUND,
                f"the {part} of {job_id} left the database; they are in the operator's archive, in {one.file}"
                if one.file
                else f"the {part} of {job_id} was kept for as long as the operator keeps it, and dropped",
                remedy=f"ask the operator for: usance-coordinator archive --show {job_id}"
                if one.file
                else "",
            )
