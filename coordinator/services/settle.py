"""Usage records to money: accepted once, in order, clamped, charged, all in one commit."""

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.domain.claim import Strike
from coordinator.domain.event import EventKind, NewEvent, billed
from coordinator.domain.job import Attempt, Job
from coordinator.domain.metering import Lie, Line, Stamp, accept, sight_by_usage
from coordinator.domain.states import AttemptState, Cause, EndReason
from coordinator.domain.values import changed
from coordinator.services.attempts import LostRaceError, ask_stop, end_attempt
from coordinator.services.restoration import lost_records
from coordinator.services.strikes import strike
from coordinator.store.ports import NUMBER_MAX, Transaction
from ledger.entries import Transfer, capture
from runtime.evidence import UsageRecord
from runtime.ids import timed_uuid

_REWRITTEN = "another usage record than it sent before under the same number"


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What an attempt's records came to."""

    before: Attempt
    after: Attempt
    lines: Sequence[Line] = ()
    lie: Lie | None = None


def take_in(
    attempt: Attempt, records: Sequence[UsageRecord], host_boot_id: str, window_ms: int, now: Stamp
) -> Taken:
    """As many of its records as could be taken in; what is known already is passed over."""
    fresh = [record for record in records if record.number > attempt.meter.usage_number]
    if attempt.lie or attempt.state is AttemptState.ENDED or not fresh:
        return Taken(before=attempt, after=attempt)
    meter = attempt.meter
    if attempt.reported_end is None:
        meter = sight_by_usage(meter, host_boot_id, now, window_ms)
    meter, lines, lie = accept(meter, fresh, now)
    # What was witnessed by usage alone, the run has lasted longer since its host last said how long.
    run_ms = attempt.run_ms_reported + meter.witnessed_ms - attempt.meter.witnessed_ms
    after = changed(attempt, meter=meter, run_ms_reported=run_ms, lie=lie or "")
    return Taken(before=attempt, after=after, lines=lines, lie=lie)


def just_follows(attempt: Attempt, records: Sequence[UsageRecord]) -> bool:
    """Nothing among them was taken in before, and nothing comes after the end that the host has told."""
    end = attempt.reported_end
    last = NUMBER_MAX if end is None else end.usage_number
    return all(attempt.meter.usage_number < record.number <= last for record in records)


def settle(
    tx: Transaction,
    attempt: Attempt,
    records: Sequence[UsageRecord],
    host_boot_id: str,
    window_ms: int,
    now: Stamp,
) -> Attempt:
    """The attempt after its records."""
    taken = take_in(attempt, records, host_boot_id, window_ms, now)
    if lost_records(tx, attempt, records, taken.lie):
        end_attempt(tx, attempt, EndReason.RESTORED, None, "its usage was lost with the database", now)
        return tx.attempts([attempt.id])[attempt.id]
    if not just_follows(attempt, records) and not attempt.lie:
        _look_back(tx, attempt, records, now)
    after = taken.after
    if after == attempt:
        return attempt
    if not tx.save_attempt(attempt, after):
        raise LostRaceError
    if taken.lines:
        charge(tx, [taken], now)
    if taken.lie is not None:
        job = tx.job(attempt.job_id)
        assert job is not None, "an attempt has a job"
        after = refuse_claim(tx, job, after, taken.lie, now)
    return after


def _look_back(tx: Transaction, attempt: Attempt, records: Sequence[UsageRecord], now: Stamp) -> None:
    """What comes again must be what came before: it is passed over all the same, but not the lie in it."""
    end, numbers = attempt.reported_end, [record.number for record in records]
    known = {
        line.record.number: line.record.digest
        for line, _ in tx.lines_of([attempt.id], min(numbers), max(numbers))[attempt.id]
    }
    if any(record.digest != known.get(record.number, record.digest) for record in records):
        strike(tx, attempt.host_id, Strike.FALSE_CLAIM, attempt.id, _REWRITTEN, now.wall_ms)
    elif end is not None and max(numbers) > end.usage_number:
        strike(tx, attempt.host_id, Strike.ALIVE_AFTER_END, attempt.id, "usage", now.wall_ms)


def refuse_claim(tx: Transaction, job: Job, attempt: Attempt, lie: Lie, now: Stamp) -> Attempt:
    """Told to the buyer, and stopped: a host that claims what can't be gains nothing by going on."""
    event = NewEvent(
        kind=EventKind.REFUSED_CLAIM,
        job_id=job.id,
        attempt_id=attempt.id,
        text=f"the host's claim was refused and nothing more is charged: {lie}",
        job_state=job.state,
        cause=Cause.HOST,
    )
    tx.append_events([event], now.wall_ms)
    strike(tx, attempt.host_id, Strike.FALSE_CLAIM, attempt.id, str(lie), now.wall_ms)
    return ask_stop(tx, job, attempt, EndReason.CLAIM_REFUSED, now)


def finish_if_settled(tx: Transaction, attempt: Attempt, now: Stamp) -> None:
    """An attempt is over when the host has said so and all its usage is in."""
    end = attempt.reported_end
    if end is None or attempt.state is AttemptState.ENDED:
        return
    if attempt.meter.usage_number >= end.usage_number or attempt.lie:
        end_attempt(tx, attempt, end.reason, end.exit_code, end.detail, now)


def charge(tx: Transaction, many: Sequence[Taken], now: Stamp) -> None:
    """Lines, transfers, totals and events of many attempts, each of another job, with one statement each."""
    due_micro = [_sum_micro(taken.lines) for taken in many]
    transfers = [_capture(taken, micro, now) for taken, micro in zip(many, due_micro, strict=True) if micro]
    for outcome in tx.post(transfers, now.wall_ms):
        assert outcome.ok, outcome
    paid = iter(transfers)
    lines = list[tuple[str, Line, str]]()
    for taken, micro in zip(many, due_micro, strict=True):
        attempt_id, transfer_id = taken.after.id, str(next(paid).id) if micro else ""
        lines += [(attempt_id, line, transfer_id if line.charge.charge_micro else "") for line in taken.lines]
    tx.insert_all_lines(lines)
    states = tx.add_charges({taken.after.job_id: micro for taken, micro in zip(many, due_micro, strict=True)})
    if not states:
        raise LostRaceError
    tx.append_events(
        [
            NewEvent(
                kind=EventKind.BILLED,
                job_id=taken.after.job_id,
                attempt_id=taken.after.id,
                text=billed(taken.lines),
                job_state=states[taken.after.job_id],
                bill_line_number=taken.lines[-1].record.number,
                bill_line_first=taken.lines[0].record.number if len(taken.lines) > 1 else None,
            )
            for taken in many
        ],
        now.wall_ms,
    )
    tx.wake(*(taken.after.job_id for taken in many))


def _capture(taken: Taken, amount_micro: int, now: Stamp) -> Transfer:
    """One for all that was taken in of an attempt: its lines say what of it each record came to.

    Its id sorts by about when the last record ended, for captures are what a ledger has most of.
    """
    attempt, record = taken.after, taken.lines[-1].record
    ended_ms = attempt.meter.assigned.wall_ms + record.end_ms
    return capture(
        transfer_id=timed_uuid(ended_ms, "capture", attempt.id, attempt.epoch, record.number),
        job_id=attempt.job_id,
        seller_id=attempt.seller_account_id,
        amount_micro=amount_micro,
        fee_micro=sum([line.charge.fee_micro for line in taken.lines]),
        event_ms=now.wall_ms,
    )


def _sum_micro(lines: Sequence[Line]) -> int:
    return sum([line.charge.charge_micro for line in lines])
