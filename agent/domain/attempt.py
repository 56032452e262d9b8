"""What the agent is asked to hold, and what it holds: values without behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from agent.domain.confidential import Confidential
from agent.domain.use import JobFigures

RUN_MS_MAX_DEFAULT = 86_400_000
STOP_GRACE_MS_DEFAULT = 10_000


class AttemptState(StrEnum):
    """Where an attempt stands on this host; `types.proto` says what each means."""

    PREPARING = "preparing"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


class EndReason(StrEnum):
    """Why an attempt ended; `types.proto` says what each means and who caused it."""

    EXITED = "exited"
    CANCELLED = "cancelled"
    BUDGET_SPENT = "budget_spent"
    TIME_LIMIT = "time_limit"
    OUT_OF_MEMORY = "out_of_memory"
    IMAGE_UNAVAILABLE = "image_unavailable"
    COMMAND_UNSTARTABLE = "command_unstartable"
    START_FAILED = "start_failed"
    HOST_LOST = "host_lost"
    HOST_FORGOT = "host_forgot"
    GPU_LOST = "gpu_lost"
    RECLAIMED = "reclaimed"
    PAID_THROUGH = "paid_through"
    SUPERSEDED = "superseded"
    CLAIM_REFUSED = "claim_refused"
    REPLACED = "replaced"
    RESTORED = "restored"


class Isolation(StrEnum):
    """How far a job is kept away from the host."""

    PROCESS = "process"
    CONTAINER = "container"


class Network(StrEnum):
    """How much of the network a job may reach; `types.proto` says what each means."""

    NONE = "none"
    ALLOW_LIST = "allow_list"
    INTERNET = "internet"


class OutputStream(StrEnum):
    """Which of the command's two streams."""

    STDOUT = "stdout"
    STDERR = "stderr"


class AttemptKey(NamedTuple):
    """Names one try under one epoch: nothing of an older epoch is ever mistaken for it."""

    attempt_id: str
    epoch: int

    def __str__(self) -> str:
        return f"{self.attempt_id}.{self.epoch}"


@dataclass(frozen=True, kw_only=True)
class JobOrder:
    """All that the agent needs to know to run an attempt. It never changes during one."""

    key: AttemptKey
    image: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    gpu_uuids: tuple[str, ...]
    isolation_min: Isolation
    stop_grace_ms: int
    run_ms_max: int
    # 0 leaves the share to the host.
    memory_bytes: int
    cpu_milli: int
    network: Network = Network.NONE
    # Only with ALLOW_LIST: "example.org:443", "203.0.113.0/24".
    network_destinations: tuple[str, ...] = ()
    # There is more of it that nobody may see, and that is never kept with it.
    is_confidential: bool = False
    # Which request it came from, and its place in that one's trace: for logs and traces.
    request_id: str = ""
    traceparent: str = ""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A command that was started. `run_id` names this very run; another start would have another."""

    run_id: str
    # When it started, on CLOCK_BOOTTIME of boot `boot_id`; late rather than early where it is not exact.
    start_boot_ms: int
    boot_id: str


@dataclass(frozen=True, kw_only=True)
class DesiredAttempt:
    """What the coordinator wants of one attempt."""

    order: JobOrder
    paid_through_ms: int
    stop_reason: EndReason | None
    usage_number_acknowledged: int
    log_offset_acknowledged: int
    # Until the coordinator has seen it run.
    confidential: Confidential | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Acknowledgement:
    """Up to where usage and output are stored for good by the coordinator."""

    key: AttemptKey
    usage_number: int
    log_offset: int


@dataclass(frozen=True, kw_only=True)
class OutputTotals:
    """What an attempt wrote in all."""

    stdout_bytes: int
    stderr_bytes: int
    stdout_sha256: bytes
    stderr_sha256: bytes


@dataclass(frozen=True, kw_only=True)
class OutputChunk:
    """A piece of output; `offset` counts the bytes of both streams before it."""

    offset: int
    stream: OutputStream
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an attempt ended. `exit_code` only where the command's own end is known."""

    reason: EndReason
    detail: str
    run_ms: int
    exit_code: int | None
    usage_number_last: int
    totals: OutputTotals


@dataclass(frozen=True, kw_only=True)
class AttemptReport:
    """One attempt as the agent sees it now."""

    key: AttemptKey
    state: AttemptState
    container_id: str
    run_ms: int
    detail: str
    ending: Ending | None
    # How it goes, where that is known; only while its command runs.
    figures: JobFigures | None = None
