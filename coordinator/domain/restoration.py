"""A database that was restored from a backup: what it can't know, and what follows from that.

What was live when the backup was made has gone on since, and its host may have told the end of it to a
coordinator of which nothing is left. So that a host holds such an attempt no longer is held against nobody,
until the host has shown it once.
"""

from dataclasses import dataclass

from coordinator.domain.job import Attempt
from coordinator.domain.states import AttemptState, EndReason

# No number of an event is told twice: whoever has seen the lost ones waits for greater ones.
EVENTS_LEFT_OUT = 1_000_000_000
# What is said of an attempt that its host does not have (any more).
_GONE = frozenset({EndReason.HOST_FORGOT, EndReason.HOST_LOST, EndReason.REPLACED, EndReason.START_FAILED})
# What only a coordinator asks for: if we know nothing of it, the one before us did.
_ASKED = frozenset(
    {
        EndReason.CANCELLED,
        EndReason.RECLAIMED,
        EndReason.REPLACED,
        EndReason.CLAIM_REFUSED,
        EndReason.SUPERSEDED,
    }
)


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """The database was restored, for the `number`th time."""

    number: int
    # Names what the database is since then; no other restoration has this name.
    name: str
    restored_ms: int
    # The last moment of which it knew anything.
    known_ms: int
    # The last event that it knew of, and how many numbers were left out after it.
    event_number: int
    events_left_out: int
    # The last transfer that it knew of, and the hash of all up to it.
    transfer_seq: int
    seal_hash: bytes
    # Live then.
    jobs: int
    attempts: int

    @property
    def unknown_ms(self) -> int:
        return max(0, self.restored_ms - self.known_ms)


def is_unseen(attempt: Attempt, restored: Restoration | None) -> bool:
    """It was live when the database was restored, and its host has not shown it since."""
    if restored is None or attempt.meter.assigned.wall_ms > restored.restored_ms:
        return False
    sighted = attempt.meter.sighted
    return sighted is None or sighted.wall_ms <= restored.restored_ms


def end_of(attempt: Attempt, reason: EndReason, restored: Restoration | None) -> EndReason:
    """Why it ended, where nobody can tell how it went on."""
    told = attempt.reported_end is not None
    return EndReason.RESTORED if not told and reason in _GONE and is_unseen(attempt, restored) else reason


def was_perhaps_stopped(attempt: Attempt, state: AttemptState, reason: EndReason | None) -> bool:
    """Its host tells what it would tell if a coordinator had asked for the end of it, which we did not."""
    return attempt.stop_reason is None and (state is AttemptState.STOPPING or reason in _ASKED)


def sentence(restored: Restoration) -> str:
    """For whoever is told of it."""
    return (
        "the market was restored from a backup: what happened in the"
        f" {restored.unknown_ms // 1000} s before is not known to it"
    )
