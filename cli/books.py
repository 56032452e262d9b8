"""An account's tokens and books: movements, what jobs cost, what hosts earned."""

from dataclasses import dataclass
from enum import StrEnum

from cli.model import AttemptState, Cause, EndReason, JobState


class Purse(StrEnum):
    """What an account holds that has a statement."""

    UNSPECIFIED = "UNSPECIFIED"
    WALLET = "WALLET"
    EARNINGS = "EARNINGS"


class CostsBy(StrEnum):
    JOB = "job"
    LABEL = "label"
    DAY = "day"
    MONTH = "month"


class EarningsBy(StrEnum):
    ATTEMPT = "attempt"
    HOST = "host"
    GPU = "gpu"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, kw_only=True)
class Period:
    """From `since_ms` on and before `until_ms`; 0 for no bound."""

    since_ms: int = 0
    until_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class TokenFacts:
    """A token without its secret."""

    token_id: str
    label: str
    created_at_ms: int
    expires_at_ms: int
    revoked_at_ms: int
    current: bool


@dataclass(frozen=True, kw_only=True)
class Movement:
    """What one transfer did to a wallet or to earnings."""

    transfer_id: str
    kind: str
    delta_micro: int
    balance_micro: int
    job_id: str
    reason: str
    posted_at_ms: int


@dataclass(frozen=True, kw_only=True)
class Statement:
    opening_micro: int
    closing_micro: int
    movements: tuple[Movement, ...]


@dataclass(frozen=True, kw_only=True)
class JobCost:
    job_id: str
    name: str
    labels: tuple[tuple[str, str], ...]
    state: JobState
    submitted_at_ms: int
    charged_micro: int
    credited_micro: int
    billed_ms: int
    held_micro: int


@dataclass(frozen=True, kw_only=True)
class AttemptEarning:
    attempt_id: str
    host_id: str
    gpu_model: str
    gpu_count: int
    assigned_at_ms: int
    state: AttemptState
    end_reason: EndReason
    cause: Cause
    billed_ms: int
    charged_micro: int
    fee_micro: int
    returned_micro: int
