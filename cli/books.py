"""An account's tokens and books: movements, what jobs cost, what hosts earned."""

from dataclasses import dataclass
from enum import StrEnum

from cli.model import AttemptState, Cause, EndReason, HostState, JobState
from cli.people import Host


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
    # What it opens; none for all that its account may.
    scopes: tuple[str, ...] = ()
    # 0 where it was not.
    last_used_at_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class Act:
    """What somebody did, or tried to do, that needs trust or moves money."""

    act_id: str
    happened_at_ms: int
    who: str
    token_id: str
    address: str
    rpc: str
    request: str
    result: str
    request_id: str


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
    refunded_micro: int = 0

    @property
    def back_micro(self) -> int:
        """What came of it again, by the rule or by the operator."""
        return self.credited_micro + self.refunded_micro


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


@dataclass(frozen=True, kw_only=True)
class SpendingCap:
    """`month_micro` 0 is no limit."""

    month_micro: int
    alert_percent: int
    used_micro: int
    month_began_at_ms: int
    month_ends_at_ms: int


@dataclass(frozen=True, kw_only=True)
class ModelPrice:
    """What one GPU model is offered for, over all hosts."""

    gpu_model: str
    host_count: int
    gpu_count: int
    gpu_count_free: int
    gpu_hour_price_micro_min: int
    gpu_hour_price_micro_median: int
    gpu_hour_price_micro_max: int
    simulated: bool


@dataclass(frozen=True, kw_only=True)
class OwnedHost:
    """A host and whose it is."""

    host: Host
    account_name: str


@dataclass(frozen=True, kw_only=True)
class GpuClaim:
    """A host names a GPU that belongs to another."""

    gpu_uuid: str
    host_id: str
    owner_host_id: str
    since_at_ms: int
    same_seller: bool


@dataclass(frozen=True, kw_only=True)
class HostCount:
    state: HostState
    count: int


@dataclass(frozen=True, kw_only=True)
class JobCount:
    state: JobState
    count: int


@dataclass(frozen=True, kw_only=True)
class Health:
    started_at_ms: int
    version: str
    database: str
    hosts: tuple[HostCount, ...]
    jobs: tuple[JobCount, ...]
    queued_since_at_ms: int
    transfers: int
    transfers_sealed: int
    sum_micro: int
