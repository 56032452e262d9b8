"""What the buyer's side speaks of. Plain values: `cli.client` turns messages into them and back.

Names, units and bounds are those of proto/usance/v1; a test holds the enumerations equal.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from cli.figures import JobFigures
from cli.wishes import (
    ANY_HOST,
    NOTHING,
    Confidential,
    GpuRequest,
    HostRequest,
    Network,
    OfferOrder,
    OnHostLoss,
    Policy,
)
from runtime.evidence import UsageRecord


class RefusalCode(StrEnum):
    """Why the market refused; the codes of `--json` errors."""

    UNSPECIFIED = "UNSPECIFIED"
    INVALID_FIELD = "INVALID_FIELD"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    JOB_ENDED = "JOB_ENDED"
    ENROLMENT_REFUSED = "ENROLMENT_REFUSED"
    NAME_TAKEN = "NAME_TAKEN"
    SUPERSEDED = "SUPERSEDED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"
    SPENDING_CAP = "SPENDING_CAP"
    RATE_LIMITED = "RATE_LIMITED"


class Isolation(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    PROCESS = "PROCESS"
    CONTAINER = "CONTAINER"


class Cause(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    BUYER = "BUYER"
    HOST = "HOST"
    PLATFORM = "PLATFORM"
    UNKNOWN = "UNKNOWN"


class JobState(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


ENDED_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})


class AttemptState(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    ASSIGNED = "ASSIGNED"
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    ENDED = "ENDED"


class EndReason(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    EXITED = "EXITED"
    CANCELLED = "CANCELLED"
    BUDGET_SPENT = "BUDGET_SPENT"
    TIME_LIMIT = "TIME_LIMIT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    IMAGE_UNAVAILABLE = "IMAGE_UNAVAILABLE"
    COMMAND_UNSTARTABLE = "COMMAND_UNSTARTABLE"
    START_FAILED = "START_FAILED"
    HOST_LOST = "HOST_LOST"
    HOST_FORGOT = "HOST_FORGOT"
    GPU_LOST = "GPU_LOST"
    RECLAIMED = "RECLAIMED"
    PAID_THROUGH = "PAID_THROUGH"
    SUPERSEDED = "SUPERSEDED"
    CLAIM_REFUSED = "CLAIM_REFUSED"
    REPLACED = "REPLACED"
    RESTORED = "RESTORED"


class HostState(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    ONLINE = "ONLINE"
    SUSPECT = "SUSPECT"
    LOST = "LOST"
    PAUSED = "PAUSED"
    DRAINING = "DRAINING"
    QUARANTINED = "QUARANTINED"


class Role(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    BUYER = "BUYER"
    SELLER = "SELLER"
    OPERATOR = "OPERATOR"


class EventKind(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    SUBMITTED = "SUBMITTED"
    ASSIGNED = "ASSIGNED"
    PREPARING = "PREPARING"
    STARTED = "STARTED"
    BILLED = "BILLED"
    STOP_ASKED = "STOP_ASKED"
    ATTEMPT_ENDED = "ATTEMPT_ENDED"
    REQUEUED = "REQUEUED"
    ENDED = "ENDED"
    REFUSED_CLAIM = "REFUSED_CLAIM"
    EXTENDED = "EXTENDED"
    CREDITED = "CREDITED"
    BUDGET_LOW = "BUDGET_LOW"
    HOST_ENROLLED = "HOST_ENROLLED"
    HOST_STATE = "HOST_STATE"
    ACCOUNT_CREATED = "ACCOUNT_CREATED"
    TOKEN_CREATED = "TOKEN_CREATED"  # noqa: S105 - a kind of event
    DEPOSITED = "DEPOSITED"
    TOKEN_REVOKED = "TOKEN_REVOKED"  # noqa: S105 - a kind of event
    WITHDRAWN = "WITHDRAWN"
    REFUNDED = "REFUNDED"
    CAP_SET = "CAP_SET"
    RESTORED = "RESTORED"


class LogStream(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    STDOUT = "STDOUT"
    STDERR = "STDERR"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    uuid: str
    model: str
    vram_bytes: int
    simulated: bool


RUN_MS_MAX_DEFAULT = 86_400_000


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    name: str
    image: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    gpus: GpuRequest
    isolation_min: Isolation
    gpu_hour_price_micro_max: int
    budget_micro: int
    run_ms_max: int
    stop_grace_ms: int | None
    retries_max: int
    queue_ms_max: int = 0
    host: HostRequest = ANY_HOST
    policy: Policy = Policy.UNSPECIFIED
    priority: int = 0
    on_host_loss: OnHostLoss = OnHostLoss.UNSPECIFIED
    labels: tuple[tuple[str, str], ...] = ()
    note: str = ""
    memory_bytes: int = 0
    cpu_milli: int = 0
    network: Network = Network.UNSPECIFIED
    network_destinations: tuple[str, ...] = ()
    # Only of an order that is not submitted yet: nobody tells it back.
    confidential: Confidential = field(default=NOTHING, repr=False, metadata={"hidden": True})

    @property
    def time_limit_ms(self) -> int:
        return self.run_ms_max or RUN_MS_MAX_DEFAULT


@dataclass(frozen=True, kw_only=True)
class OfferFilter:
    gpus: GpuRequest
    isolation_min: Isolation
    gpu_hour_price_micro_max: int
    host: HostRequest = ANY_HOST
    order: OfferOrder = OfferOrder.UNSPECIFIED
    network_min: Network = Network.UNSPECIFIED
    image: str = ""
    run_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class Offer:
    host_id: str
    gpu_model: str
    gpu_count_free: int
    vram_bytes: int
    simulated: bool
    gpu_hour_price_micro: int
    isolation: Isolation
    region: str
    executor: str
    run_ms_max: int
    driver_version: str
    cuda_version: str = ""
    reliability_ppm: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    compute_capability: str = ""
    reclaim_notice_ms: int = 0
    network_max: Network = Network.UNSPECIFIED
    network_destinations: tuple[str, ...] = ()
    # In the seller's own words, unless measured; None where nobody has said.
    download_bps: int | None = None
    upload_bps: int | None = None
    network_measured: bool = False
    # 0 where the seller's hours never end.
    closes_at_ms: int = 0
    images_allowed: tuple[str, ...] = ()
    images_denied: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LimitCount:
    limit: str
    host_count: int
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Quote:
    offer: Offer | None
    hour_price_micro: int
    hold_micro: int
    run_ms_affordable: int
    hosts_considered: int
    limits: tuple[LimitCount, ...]
    fee_ppm: int
    cheapest_change: str = ""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    attempt_id: str
    epoch: int
    host_id: str
    gpus: tuple[Gpu, ...]
    state: AttemptState
    end_reason: EndReason
    cause: Cause
    exit_code: int | None
    hour_price_micro: int
    billed_ms: int
    unbilled_ms: int
    charged_micro: int
    detail: str
    isolation: Isolation
    # Only of a job that was asked for by itself, while it runs.
    figures: JobFigures | None = None
    figures_at_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class Job:
    job_id: str
    spec: JobSpec
    state: JobState
    cause: Cause
    detail: str
    submitted_at_ms: int
    ended_at_ms: int
    charged_micro: int
    attempts: tuple[Attempt, ...]
    exit_code: int | None
    limits: tuple[LimitCount, ...]
    queue_place: int = 0
    cheapest_change: str = ""
    secret_names: tuple[str, ...] = ()
    request_id: str = ""
    # Only of a job that was just taken in: what its buyer should see now.
    notices: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        return self.state in ENDED_STATES


@dataclass(frozen=True, kw_only=True)
class BillLine:
    attempt_id: str
    record: UsageRecord
    witnessed_ms: int
    billed_through_ms: int
    charge_micro: int
    fee_micro: int
    earning_micro: int
    transfer_id: str


@dataclass(frozen=True, kw_only=True)
class BillCredit:
    """What went back of a bill line because the host was at fault."""

    number: int
    earning_micro: int
    fee_micro: int
    transfer_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class BillAttempt:
    attempt_id: str
    epoch: int
    host_id: str
    gpu_uuids: tuple[str, ...]
    hour_price_micro: int
    fee_ppm: int
    run_ms_affordable: int
    run_ms_max: int
    lines: tuple[BillLine, ...]
    credits: tuple[BillCredit, ...] = ()
    end_reason: EndReason = EndReason.UNSPECIFIED


@dataclass(frozen=True, kw_only=True)
class BillRefund:
    """What the operator gave back of the job, beside the published rule."""

    transfer_id: str
    amount_micro: int
    reason: str
    refunded_at_ms: int


@dataclass(frozen=True, kw_only=True)
class Bill:
    job_id: str
    final: bool
    held_micro: int
    charged_micro: int
    released_micro: int
    attempts: tuple[BillAttempt, ...]
    credited_micro: int = 0
    refunded_micro: int = 0
    refunds: tuple[BillRefund, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Event:
    number: int
    kind: EventKind
    happened_at_ms: int
    text: str
    job_state: JobState
    cause: Cause
    attempt_id: str
    bill_line: BillLine | None


@dataclass(frozen=True, kw_only=True)
class LogPiece:
    """Output of one attempt at one offset; both streams count into the offset."""

    attempt_id: str
    offset: int
    stream: LogStream
    data: bytes
    # When the market stored it; 0 where it did not say.
    stored_at_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class LogTotals:
    stdout_bytes: int
    stderr_bytes: int
    stdout_sha256: bytes
    stderr_sha256: bytes


@dataclass(frozen=True, kw_only=True)
class LogEnd:
    attempt_id: str
    complete: bool
    totals: LogTotals | None
    offset: int
