"""What is told of a job, in the transaction that makes it true."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coordinator.domain.metering import Line
from coordinator.domain.states import Cause, JobState
from coordinator.domain.values import changed


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
    EXTENDED = "extended"
    CREDITED = "credited"
    BUDGET_LOW = "budget_low"
    HOST_ENROLLED = "host_enrolled"
    HOST_STATE = "host_state"
    ACCOUNT_CREATED = "account_created"
    TOKEN_CREATED = "token_created"  # noqa: S105 - a kind of event
    DEPOSITED = "deposited"
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - a kind of event
    WITHDRAWN = "withdrawn"
    REFUNDED = "refunded"
    CAP_SET = "cap_set"
    RESTORED = "restored"


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """Of a job (then `job_state` says its state after it), of a host, or of an account."""

    kind: EventKind
    text: str
    job_id: str = ""
    job_state: JobState | None = None
    attempt_id: str = ""
    host_id: str = ""
    account_id: str = ""
    cause: Cause | None = None
    bill_line_number: int | None = None
    # Where it tells of several lines at once: the first of them, and `bill_line_number` is the last. Whoever
    # reads it is told of each by itself (`each`).
    bill_line_first: int | None = None

    @property
    def count(self) -> int:
        """How many numbers it takes: one for each line that it tells of."""
        if self.bill_line_first is None or self.bill_line_number is None:
            return 1
        return self.bill_line_number - self.bill_line_first + 1


@dataclass(frozen=True, kw_only=True)
class Event:
    number: int
    happened_ms: int
    what: NewEvent


def billed(lines: Sequence[Line]) -> str:
    first, last = lines[0].record.number, lines[-1].record.number
    which = f"record {last}" if first == last else f"records {first} to {last}"
    return f"{which}: billed through {lines[-1].billed_through_ms} ms of run time"


def each(event: Event) -> Iterator[Event]:
    """What one who reads is told: of every bill line by itself. The event has the last of their numbers."""
    what = event.what
    if what.bill_line_first is None:
        yield event
        return
    last = what.bill_line_number or 0
    for line_number in range(what.bill_line_first, last + 1):
        one = changed(what, bill_line_number=line_number, bill_line_first=None)
        yield Event(number=event.number - (last - line_number), happened_ms=event.happened_ms, what=one)
