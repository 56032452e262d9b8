"""What a buyer asked for, and each try of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from coordinator.domain.host import Gpu, Isolation, Network
from coordinator.domain.metering import Meter, Stamp
from coordinator.domain.states import JOB_TERMINAL, AttemptState, Cause, EndReason, JobState

BUDGET_MICRO_MAX = 2**53 - 1
RUN_MS_DEFAULT = 86_400_000
RUN_MS_MAX = 2_592_000_000
STOP_GRACE_MS_DEFAULT = 10_000
PRIORITY_DEFAULT = 50
PRIORITY_MAX = 100


class Policy(StrEnum):
    """Which of the hosts that fit gets the job."""

    BALANCED = "balanced"
    CHEAPEST = "cheapest"
    FASTEST_START = "fastest_start"
    MOST_RELIABLE = "most_reliable"


class OnHostLoss(StrEnum):
    """What the buyer wants when the host of a running job falls silent."""

    WAIT = "wait"
    REPLACE = "replace"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class GpuRequest:
    count: int
    model: str = ""
    vram_bytes_min: int = 0
    compute_capability_min: str = ""
    # Those that do not exist will do too.
    simulated: bool = False


@dataclass(frozen=True, kw_only=True)
class HostRequest:
    """What is asked of a host beside its GPUs; what is empty may be anything."""

    driver_version_min: str = ""
    cuda_version_min: str = ""
    regions: tuple[str, ...] = ()
    reliability_ppm_min: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """The buyer's order, validated; zeros of the contract are replaced by what they stand for."""

    name: str
    image: str
    command: tuple[str, ...]
    gpus: GpuRequest
    budget_micro: int
    env: Mapping[str, str] = field(default_factory=dict)
    isolation_min: Isolation = Isolation.CONTAINER
    gpu_hour_price_micro_max: int = 0
    run_ms_max: int = RUN_MS_DEFAULT
    stop_grace_ms: int = STOP_GRACE_MS_DEFAULT
    retries_max: int = 0
    queue_ms_max: int = 0
    memory_bytes: int = 0
    cpu_milli: int = 0
    host: HostRequest = HostRequest()
    policy: Policy = Policy.BALANCED
    priority: int = PRIORITY_DEFAULT
    on_host_loss: OnHostLoss = OnHostLoss.WAIT
    labels: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    network: Network = Network.NONE
    # Only with ALLOW_LIST.
    network_destinations: tuple[str, ...] = ()
    # What nobody may see is stored apart and sealed; here is only what there is of it.
    secret_names: tuple[str, ...] = ()
    has_registry_credential: bool = False

    @property
    def is_confidential(self) -> bool:
        return bool(self.secret_names) or self.has_registry_credential


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Which request a job came from: for logs and traces, and nothing is decided by it."""

    request_id: str = ""
    # Its place in that request's trace, as W3C's traceparent; empty where nobody traces.
    traceparent: str = ""


# Of a job of before it was noted.
NO_ORIGIN = Origin()


@dataclass(frozen=True, kw_only=True)
class Job:
    id: str
    account_id: str
    account_name: str
    spec: JobSpec
    state: JobState
    cause: Cause | None
    detail: str
    submitted_ms: int
    # Since when it waits for a host, or last did.
    queued_ms: int
    ended_ms: int
    charged_micro: int
    retries_used: int
    exit_code: int | None
    origin: Origin = NO_ORIGIN

    @property
    def is_over(self) -> bool:
        return self.state in JOB_TERMINAL


class LogState(StrEnum):
    """Whether more output is to come."""

    OPEN = "open"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, kw_only=True)
class LogTotals:
    """What the host says that the command wrote in all."""

    stdout_bytes: int
    stderr_bytes: int
    stdout_sha256: bytes
    stderr_sha256: bytes


@dataclass(frozen=True, kw_only=True)
class LogChunk:
    offset: int
    stream: int
    data: bytes
    # When it was stored, which is nothing of what was written; 0 where that is not known.
    stored_ms: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class ReportedEnd:
    """What the host said of the end. The attempt ends when its usage up to `usage_number` is in."""

    reason: EndReason
    exit_code: int | None
    usage_number: int
    detail: str
    at: Stamp


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try of a job on one host. The meter holds its price and what was charged."""

    id: str
    job_id: str
    epoch: int
    host_id: str
    seller_account_id: str
    isolation: Isolation
    gpus: tuple[Gpu, ...]
    state: AttemptState
    meter: Meter
    paid_through_ms: int = 0
    # The buyer was told that the money is nearly gone.
    warned: bool = False
    run_ms_reported: int = 0
    stop_reason: EndReason | None = None
    reported_end: ReportedEnd | None = None
    end_reason: EndReason | None = None
    cause: Cause | None = None
    exit_code: int | None = None
    detail: str = ""
    lie: str = ""
    log_offset: int = 0
    log_totals: LogTotals | None = None
    log_state: LogState = LogState.OPEN

    @property
    def is_over(self) -> bool:
        """The host need not be told of it any more."""
        return self.state is AttemptState.ENDED and self.log_state is not LogState.OPEN
