"""The database was restored from a backup: it is marked, all are told, and what came of it is counted."""

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.job import Attempt, Job
from coordinator.domain.metering import Lie
from coordinator.domain.restoration import (
    EVENTS_LEFT_OUT,
    Restoration,
    end_of,
    is_unseen,
    sentence,
    was_perhaps_stopped,
)
from coordinator.domain.states import AttemptState, Cause, EndReason
from coordinator.store.ports import Transaction
from coordinator.store.ports_keeping import Stranger
from runtime.evidence import UsageRecord
from runtime.ids import new_uuid

JOBS_A_LOOK = 500
NEVER_MS = 2**63 - 1
_MAY_GO_ON = "it goes on if its host still has it"
_MAY_RUN = "it waits for a host; whether it has run since, nobody knows"


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """What has become of what was live when the database was restored."""

    restored: Restoration
    # Seen again by the coordinator; ended without anybody knowing how; not heard of yet.
    went_on: int
    ended_unknown: int
    awaited: int
    # What their hosts have recorded of them and nobody witnessed.
    unbilled_ms: int
    # What hosts held and was not known: told to end.
    strangers: Sequence[Stranger]

    @property
    def stranger_ms(self) -> int:
        return sum(one.run_ms for one in self.strangers)


def mark(tx: Transaction, now_ms: int) -> Restoration:
    """From now on it is known to be restored. Everybody whom it is about is told, by events."""
    # Seals of what was lost differ from those to come: here is where.
    while tx.seal(now_ms) is not None:
        pass
    before, standing = tx.restoration(), tx.standing()
    live = _live_jobs(tx)
    attempts = {
        attempt.job_id: attempt
        for of in tx.attempts_of_jobs([job.id for job in live]).values()
        for attempt in of
        if attempt.state is not AttemptState.ENDED
    }
    made = Restoration(
        number=1 if before is None else before.number + 1,
        name=str(new_uuid()),
        restored_ms=now_ms,
        known_ms=standing.known_ms,
        event_number=standing.event_number,
        events_left_out=EVENTS_LEFT_OUT,
        transfer_seq=standing.transfers,
        seal_hash=standing.seal_hash,
        jobs=len(live),
        attempts=len(attempts),
    )
    tx.insert_restoration(made)
    # What was open then may have been used since, by a machine or a person of which we know nothing; and who
    # has renewed a session since would be taken for a thief of it.
    tx.close_what_was_open(now_ms)
    tx.append_events(_told(tx, made, live, attempts), now_ms)
    return made


def _told(
    tx: Transaction, made: Restoration, live: Sequence[Job], attempts: dict[str, Attempt]
) -> list[NewEvent]:
    """Jobs come first: see `attempts_since_restored`."""
    said = sentence(made)
    jobs = [
        NewEvent(
            kind=EventKind.RESTORED,
            job_id=job.id,
            attempt_id=attempts[job.id].id if job.id in attempts else "",
            text=f"{said}; {_MAY_GO_ON if job.id in attempts else _MAY_RUN}",
            job_state=job.state,
            cause=Cause.PLATFORM,
        )
        for job in live
    ]
    kind, cause = EventKind.RESTORED, Cause.PLATFORM
    hosts = [NewEvent(kind=kind, host_id=one, text=said, cause=cause) for one in tx.host_ids()]
    accounts = [NewEvent(kind=kind, account_id=one, text=said, cause=cause) for one in tx.account_ids()]
    return [*jobs, *hosts, *accounts]


def _live_jobs(tx: Transaction) -> list[Job]:
    found = list[Job](tx.queue_after("", JOBS_A_LOOK).rows)
    while len(found) % JOBS_A_LOOK == 0 and found:
        more = tx.queue_after(found[-1].id, JOBS_A_LOOK).rows
        if not more:
            break
        found += more
    after = ""
    while True:
        attempts = tx.live_attempts(after, JOBS_A_LOOK)
        found += tx.jobs([attempt.job_id for attempt in attempts]).values()
        if len(attempts) < JOBS_A_LOOK:
            return found
        after = attempts[-1].id


def missed(tx: Transaction, attempt: Attempt) -> bool:
    """Its host comes back without it, and perhaps because it has told the end of it before."""
    return is_unseen(attempt, tx.restoration())


def end_reason_since(tx: Transaction, attempt: Attempt, reason: EndReason) -> EndReason:
    """Why it ended, as far as that can be known."""
    # Whose host has told its end, that is what it was; most have, and nothing is looked up for them.
    return reason if attempt.reported_end is not None else end_of(attempt, reason, tx.restoration())


def quiet_after_stop(
    tx: Transaction, attempt: Attempt, state: AttemptState, reason: EndReason | None
) -> bool:
    """Its end may have been asked for in what was lost, nobody knows when: nobody pays for more."""
    return was_perhaps_stopped(attempt, state, reason) and is_unseen(attempt, tx.restoration())


def lost_records(tx: Transaction, attempt: Attempt, records: Sequence[UsageRecord], lie: Lie | None) -> bool:
    """Its records go on where we have not been: those between were acknowledged by a coordinator of which
    nothing is left, and its host has them no more. That is no lie."""
    fresh = [record.number for record in records if record.number > attempt.meter.usage_number]
    if lie is not Lie.BROKEN_CHAIN or not fresh or fresh[0] == attempt.meter.usage_number + 1:
        return False
    restored = tx.restoration()
    return restored is not None and attempt.meter.assigned.wall_ms <= restored.restored_ms


def aftermath(tx: Transaction) -> list[Aftermath]:
    """Of every restoration, oldest first."""
    found, made = list[Aftermath](), tx.restorations()
    for one in made:
        attempts = tx.attempts_since_restored(one)
        unknown = [a for a in attempts if a.end_reason is EndReason.RESTORED]
        awaited = [a for a in attempts if a.state is not AttemptState.ENDED and is_unseen(a, one)]
        # What came after the next restoration is that one's.
        until_ms = next((later.restored_ms for later in made if later.number > one.number), NEVER_MS)
        found.append(
            Aftermath(
                restored=one,
                went_on=len(attempts) - len(unknown) - len(awaited),
                ended_unknown=len(unknown),
                awaited=len(awaited),
                unbilled_ms=sum(max(0, a.meter.usage_end_ms - a.meter.billed_ms) for a in attempts),
                strangers=[
                    stranger for stranger in tx.strangers(one.restored_ms) if stranger.happened_ms < until_ms
                ],
            )
        )
    return found
