"""What is, from an agent. (What should be, to it, is `desired`.)"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.host import Host, HostFacts, HostState, Terms
from coordinator.domain.job import Attempt, Job, LogChunk, LogState, LogTotals, ReportedEnd
from coordinator.domain.metering import Lie, Stamp, believe, paid_through_ms, run_ms_at_least, sight
from coordinator.domain.states import (
    AttemptState,
    AttemptStep,
    Cause,
    EndReason,
    JobStep,
    attempt_after,
    job_after,
)
from coordinator.domain.values import changed
from coordinator.services import gpus
from coordinator.services.attempts import LostRaceError, ask_stop, end_attempt
from coordinator.services.certificates import revoked, unknown
from coordinator.services.hosts import OFFERS_TOPIC, change_link, revoked_topic
from coordinator.services.restoration import missed, quiet_after_stop
from coordinator.services.settle import finish_if_settled, refuse_claim, settle
from coordinator.services.strikes import Claim, judge
from coordinator.store.ports import Transaction
from runtime.evidence import UsageRecord

LOG_READ_CHUNKS = 64
# The buyer is warned when the money lasts for five more minutes, or for a tenth of what it bought.
BUDGET_LOW_MS = 300_000


@dataclass(frozen=True, kw_only=True)
class Report:
    """One attempt as its host sees it."""

    attempt_id: str
    epoch: int
    state: AttemptState
    container_id: str = ""
    run_ms: int = 0
    exit_code: int | None = None
    end_reason: EndReason | None = None
    detail: str = ""
    usage_number_last: int = 0
    log_totals: LogTotals | None = None


@dataclass(frozen=True, kw_only=True)
class Ack:
    attempt_id: str
    epoch: int
    usage_number: int
    log_offset: int


def hello(tx: Transaction, host_id: str, facts: HostFacts, terms: Terms, now: Stamp) -> None:
    host = _seen(tx, host_id, now)
    foreign = tx.save_hello(host_id, facts, terms)
    gpus.named(tx, host, [gpu.uuid for gpu in facts.gpus], foreign, now.wall_ms)
    tx.wake(OFFERS_TOPIC)


def heard(tx: Transaction, heard: Mapping[str, Stamp]) -> None:
    """These hosts, which hold nothing, have beaten since the last call."""
    for host_id in tx.save_all_seen(heard):
        host = tx.host(host_id)
        if host is not None and host.revoked_ms:
            # Not told by whoever revokes by our RPC, but written into the database by hand.
            tx.wake(revoked_topic(host_id))
        else:
            _seen(tx, host_id, heard[host_id])


def beat(
    tx: Transaction, host_id: str, host_boot_id: str, reports: Sequence[Report], window_ms: int, now: Stamp
) -> None:
    """Take in what the host holds. What it should hold, `desired` says."""
    _seen(tx, host_id, now)
    known = {attempt.id: attempt for attempt in tx.attempts_on_host(host_id)}
    named, strange = set[str](), list[Claim]()
    for report in reports:
        attempt = known.get(report.attempt_id)
        if attempt is None or attempt.epoch != report.epoch or _is_undead(attempt, report):
            strange.append(_claim(report))
        if attempt is not None and attempt.epoch == report.epoch:
            named.add(attempt.id)
            _take(tx, attempt, report, host_boot_id, window_ms, now)
    if strange:
        judge(tx, host_id, strange, now.wall_ms)
    for attempt in known.values():
        if attempt.id not in named:
            _missing(tx, attempt, now)


def usage(
    tx: Transaction,
    host_id: str,
    host_boot_id: str,
    attempt_id: str,
    epoch: int,
    records: Sequence[UsageRecord],
    window_ms: int,
    now: Stamp,
) -> Ack | None:
    """None: the attempt is none of this host's, or its epoch is over; the next `desired` says so."""
    attempt = _own(tx, host_id, attempt_id, epoch, now)
    if attempt is None:
        return None
    after = settle(tx, attempt, records, host_boot_id, window_ms, now)
    finish_if_settled(tx, after, now)
    return ack_of(after)


def logs(
    tx: Transaction,
    host_id: str,
    attempt_id: str,
    epoch: int,
    chunks: Sequence[LogChunk],
    bytes_max: int,
    now: Stamp,
) -> Ack | None:
    """Output is kept in order and without holes: what is known is passed over, what leaves a hole waits.

    What is more than `bytes_max` is acknowledged, so that nobody waits for us to keep it, and kept by nobody.
    """
    attempt = _own(tx, host_id, attempt_id, epoch, now)
    if attempt is None:
        return None
    through = max([attempt.log_offset, *(chunk.offset + len(chunk.data) for chunk in chunks)])
    if attempt.log_state is not LogState.OPEN:
        return replace(ack_of(attempt), log_offset=through)
    fresh, offset = list[LogChunk](), attempt.log_offset
    for chunk in chunks:
        if chunk.offset == offset and offset + len(chunk.data) <= bytes_max:
            fresh.append(chunk)
            offset += len(chunk.data)
    is_too_much = any(chunk.offset == offset for chunk in chunks)
    if not fresh and not is_too_much:
        return ack_of(attempt)
    after = changed(attempt, log_offset=offset)
    if is_too_much:
        detail = f"its output is more than the {bytes_max >> 20} MiB that are kept; the rest is not"
        after = changed(after, log_state=LogState.INCOMPLETE, detail=detail)
    if fresh:
        tx.append_log(attempt.id, fresh, now.wall_ms)
    if not tx.save_attempt(attempt, after):
        raise LostRaceError
    tx.wake(attempt.job_id)
    return replace(ack_of(after), log_offset=through) if is_too_much else ack_of(_check_log(tx, after))


def _own(tx: Transaction, host_id: str, attempt_id: str, epoch: int, now: Stamp) -> Attempt | None:
    attempt = tx.attempt(attempt_id)
    if attempt is None or (attempt.host_id, attempt.epoch) != (host_id, epoch):
        judge(tx, host_id, [Claim(attempt_id=attempt_id, epoch=epoch)], now.wall_ms)
        return None
    return attempt


def _is_undead(attempt: Attempt, report: Report) -> bool:
    """Its host told the end of it before: an agent tells an end only when it can't forget it any more."""
    return attempt.reported_end is not None and report.state is not AttemptState.ENDED


def _claim(report: Report) -> Claim:
    return Claim(
        attempt_id=report.attempt_id, epoch=report.epoch, state=report.state, run_ms=max(0, report.run_ms)
    )


def ack_of(attempt: Attempt) -> Ack:
    return Ack(
        attempt_id=attempt.id,
        epoch=attempt.epoch,
        usage_number=attempt.meter.usage_number,
        log_offset=attempt.log_offset,
    )


def _seen(tx: Transaction, host_id: str, now: Stamp) -> Host:
    host = tx.host(host_id)
    if host is None:
        raise unknown(host_id)
    if host.revoked_ms:
        raise revoked(host_id)
    tx.save_seen(host_id, now)
    if host.link is not HostState.ONLINE:
        change_link(tx, host, HostState.ONLINE, "connected", now.wall_ms)
    return host


def _take(
    tx: Transaction, attempt: Attempt, report: Report, host_boot_id: str, window_ms: int, now: Stamp
) -> None:
    if report.state is AttemptState.ENDED:
        _take_end(tx, attempt, report, host_boot_id, window_ms, now)
        return
    if attempt.state is AttemptState.ENDED or attempt.reported_end is not None or attempt.lie:
        return
    job = tx.job(attempt.job_id)
    assert job is not None, "an attempt has a job"
    if report.state is AttemptState.PREPARING:
        _take_preparing(tx, job, attempt, report, now)
    elif report.state in {AttemptState.RUNNING, AttemptState.STOPPING}:
        _take_running(tx, job, attempt, report, host_boot_id, window_ms, now)


def _take_preparing(tx: Transaction, job: Job, attempt: Attempt, report: Report, now: Stamp) -> None:
    after = changed(attempt, detail=report.detail or attempt.detail)
    if attempt.state is AttemptState.ASSIGNED:
        after = changed(after, state=attempt_after(attempt.state, AttemptStep.PREPARE))
        event = NewEvent(
            kind=EventKind.PREPARING,
            job_id=job.id,
            attempt_id=attempt.id,
            text="the host prepares the job; this is not billed",
            job_state=job.state,
            cause=Cause.HOST,
        )
        tx.append_events([event], now.wall_ms)
        tx.wake(job.id)
    _save(tx, attempt, after)


def _take_running(
    tx: Transaction,
    job: Job,
    attempt: Attempt,
    report: Report,
    host_boot_id: str,
    window_ms: int,
    now: Stamp,
) -> None:
    if quiet_after_stop(tx, attempt, report.state, None):
        return
    sighted = _sighted(tx, job, attempt, report, host_boot_id, window_ms, now)
    if sighted is None:
        return
    after = changed(sighted, detail=report.detail or sighted.detail)
    if attempt.state in {AttemptState.ASSIGNED, AttemptState.PREPARING}:
        after = changed(after, state=attempt_after(attempt.state, AttemptStep.RUN), detail="runs")
        running = changed(job, state=job_after(job.state, JobStep.RUN), detail="the command runs")
        if not tx.save_job(job, running):
            raise LostRaceError
        event = NewEvent(
            kind=EventKind.STARTED,
            job_id=job.id,
            attempt_id=attempt.id,
            text="the command runs; billing begins",
            job_state=running.state,
            cause=Cause.HOST,
        )
        tx.append_events([event], now.wall_ms)
        tx.wake(job.id)
        job = running
    after = _warn(tx, job, after, now)
    _save(tx, attempt, after)
    meter, run_ms = after.meter, run_ms_at_least(after.meter, after.run_ms_reported, window_ms)
    if run_ms >= meter.run_ms_max:
        ask_stop(tx, job, after, EndReason.TIME_LIMIT, now)
    elif run_ms >= meter.run_ms_affordable:
        ask_stop(tx, job, after, EndReason.BUDGET_SPENT, now)


def _warn(tx: Transaction, job: Job, attempt: Attempt, now: Stamp) -> Attempt:
    """Once, while there is still time to extend the job."""
    meter = attempt.meter
    left_ms = meter.run_ms_affordable - attempt.run_ms_reported
    low_ms = min(BUDGET_LOW_MS, meter.run_ms_affordable // 10)
    if attempt.warned or meter.run_ms_affordable > meter.run_ms_max or left_ms > low_ms:
        return attempt
    event = NewEvent(
        kind=EventKind.BUDGET_LOW,
        job_id=job.id,
        attempt_id=attempt.id,
        text=f"the budget lasts for {max(0, left_ms) // 1000} s more; then the job is stopped",
        job_state=job.state,
        cause=Cause.BUYER,
    )
    tx.append_events([event], now.wall_ms)
    tx.wake(job.id)
    return changed(attempt, warned=True)


def _take_end(
    tx: Transaction, attempt: Attempt, report: Report, host_boot_id: str, window_ms: int, now: Stamp
) -> None:
    after = changed(attempt, log_totals=attempt.log_totals or report.log_totals)
    if attempt.state is not AttemptState.ENDED and attempt.reported_end is None:
        job = tx.job(attempt.job_id)
        assert job is not None, "an attempt has a job"
        shows = report.container_id and report.usage_number_last and not attempt.lie
        if shows and not quiet_after_stop(tx, attempt, report.state, report.end_reason):
            sighted = _sighted(tx, job, after, report, host_boot_id, window_ms, now)
            if sighted is None:
                return
            after = sighted
        after = changed(
            after,
            reported_end=ReportedEnd(
                reason=report.end_reason or EndReason.START_FAILED,
                exit_code=report.exit_code,
                usage_number=report.usage_number_last,
                detail=report.detail,
                at=now,
            ),
        )
    _save(tx, attempt, after)
    after = _check_log(tx, after)
    finish_if_settled(tx, after, now)


def _sighted(
    tx: Transaction,
    job: Job,
    attempt: Attempt,
    report: Report,
    host_boot_id: str,
    window_ms: int,
    now: Stamp,
) -> Attempt | None:
    seen = seen_running(attempt, report, host_boot_id, window_ms, now)
    if isinstance(seen, Lie):
        _refuse(tx, job, attempt, seen, now)
        return None
    return seen


def seen_running(
    attempt: Attempt, report: Report, host_boot_id: str, window_ms: int, now: Stamp
) -> Attempt | Lie:
    run_ms_more = report.run_ms - attempt.run_ms_reported
    meter = sight(attempt.meter, report.container_id, host_boot_id, run_ms_more, now, window_ms)
    if isinstance(meter, Lie):
        return meter
    believed_ms = believe(attempt.meter, report.run_ms, now)
    if isinstance(believed_ms, Lie):
        return believed_ms
    run_ms = max(attempt.run_ms_reported, believed_ms)
    if report.state is AttemptState.ENDED:
        # Not how long it has run so far, but in all.
        run_ms = believed_ms
    return changed(
        attempt,
        meter=meter,
        run_ms_reported=run_ms,
        paid_through_ms=max(attempt.paid_through_ms, paid_through_ms(meter, run_ms, window_ms)),
    )


def _refuse(tx: Transaction, job: Job, attempt: Attempt, lie: Lie, now: Stamp) -> None:
    if not attempt.lie:
        lied = changed(attempt, lie=str(lie))
        _save(tx, attempt, lied)
        refuse_claim(tx, job, lied, lie, now)


def _missing(tx: Transaction, attempt: Attempt, now: Stamp) -> None:
    """The host does not hold what it should. If nothing ran yet, it only has to be told again."""
    if attempt.state in {AttemptState.ASSIGNED, AttemptState.PREPARING} and not missed(tx, attempt):
        return
    if attempt.state is AttemptState.ENDED:
        _save(tx, attempt, changed(attempt, log_state=LogState.INCOMPLETE))
        tx.wake(attempt.job_id)
    else:
        end_attempt(tx, attempt, EndReason.HOST_FORGOT, None, "", now)


def _check_log(tx: Transaction, attempt: Attempt) -> Attempt:
    """When all bytes are here, do they have the digests that the host gave?"""
    totals = attempt.log_totals
    if totals is None or attempt.log_state is not LogState.OPEN:
        return attempt
    if attempt.log_offset < totals.stdout_bytes + totals.stderr_bytes:
        return attempt
    digests, offset = {1: hashlib.sha256(), 2: hashlib.sha256()}, 0
    while offset < attempt.log_offset:
        for chunk in tx.log_after(attempt.id, offset, LOG_READ_CHUNKS):
            digests[chunk.stream].update(chunk.data)
            offset = chunk.offset + len(chunk.data)
    whole = (digests[1].digest(), digests[2].digest()) == (totals.stdout_sha256, totals.stderr_sha256)
    end = attempt.reported_end
    if end is not None and end.reason is EndReason.HOST_LOST:
        # It says what it holds. What the command wrote until it was lost, nobody knows.
        whole = False
    after = changed(attempt, log_state=LogState.COMPLETE if whole else LogState.INCOMPLETE)
    _save(tx, attempt, after)
    tx.wake(attempt.job_id, attempt.host_id)
    return after


def _save(tx: Transaction, before: Attempt, after: Attempt) -> None:
    if after != before and not tx.save_attempt(before, after):
        raise LostRaceError
