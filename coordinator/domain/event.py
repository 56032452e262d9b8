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


@dataclass(frozen=True, kw_only=True)
class Event:
    number: int
    happened_ms: int
    what: NewEvent
