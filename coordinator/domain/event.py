"""What is told of a job, in the transaction that makes it true."""

from dataclasses import dataclass
from enum import StrEnum

from coordinator.domain.states import Cause, JobState


class EventKind(StrEnum):
    SUBMITTED = "submitted"
    ASSIGNED = "assigned"
    PREPARING = "preparing"
    STARTED = "started"
    BILLED = "billed"
    STOP_ASKED = "stop_asked"
    ATTEMPT_ENDED = "attempt_ended"
    REQUEUED = "requeued"
    ENDED = "ended"
    REFUSED_CLAIM = "refused_claim"


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    kind: EventKind
    job_id: str
    text: str
    job_state: JobState
    attempt_id: str = ""
    cause: Cause | None = None
    bill_line_number: int | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    number: int
    happened_ms: int
    what: NewEvent
