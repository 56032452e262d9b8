"""What a host is and on what terms it sells."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from coordinator.domain.hours import SaleWindow
from coordinator.domain.images import ANY_IMAGE, ImagePolicy

RELIABILITY_PPM_MAX = 1_000_000
# A host of which nothing is known yet: better than one that fails often, worse than one that never did.
RELIABILITY_PPM_AT_FIRST = 900_000


class HostState(StrEnum):
    ONLINE = "online"
    SUSPECT = "suspect"
    LOST = "lost"
    PAUSED = "paused"
    DRAINING = "draining"
    QUARANTINED = "quarantined"


class Hold(StrEnum):
    """Who holds a host back from new jobs."""

    NONE = "none"
    PAUSED = "paused"
    DRAINING = "draining"
    QUARANTINED = "quarantined"


class Isolation(IntEnum):
    """How far a job is kept away from the host and from others; more is better."""

    PROCESS = 1
    CONTAINER = 2


class Network(IntEnum):
    """How much of the network a job may reach; more is more."""

    NONE = 1
    ALLOW_LIST = 2
    INTERNET = 3


class GpuHealth(StrEnum):
    """What a GPU is fit for, as its agent judges it."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    LOST = "lost"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    uuid: str
    model: str
    vram_bytes: int
    simulated: bool = False
    compute_capability: str = ""
    # Only a healthy one gets a new job.
    health: GpuHealth = GpuHealth.HEALTHY
    health_reason: str = ""
    # Of which it is a slice; empty where it is whole.
    board_uuid: str = ""


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    hostname: str
    cpu_count: int
    memory_bytes: int
    disk_free_bytes: int
    isolation: Isolation
    executor: str
    gpus: tuple[Gpu, ...]
    driver_version: str = ""
    region: str = ""
    cuda_version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    # None where nobody has said; in the seller's own words, unless the agent has measured both.
    download_bps: int | None = None
    upload_bps: int | None = None
    network_measured: bool = False

    @property
    def gpus_fit(self) -> tuple[Gpu, ...]:
        """Those that may get a new job."""
        return tuple(gpu for gpu in self.gpus if gpu.health is GpuHealth.HEALTHY)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The seller's. `prices` maps a GPU model to its price for one GPU for one hour."""

    prices: dict[str, int] = field(default_factory=dict)
    run_ms_max: int = 0
    trusted_accounts: frozenset[str] = frozenset()
    reclaim_notice_ms: int = 0
    # The most that a job may have of it, and with ALLOW_LIST what it may ask for.
    network_max: Network = Network.NONE
    network_destinations: tuple[str, ...] = ()
    # None for always.
    hours: tuple[SaleWindow, ...] = ()
    images: ImagePolicy = ANY_IMAGE


@dataclass(frozen=True, kw_only=True)
class Host:
    id: str
    account_id: str
    account_name: str
    # What buyers are told; of the two below it, the one that matters more.
    state: HostState
    link: HostState = HostState.ONLINE
    hold: Hold = Hold.NONE
    # Only under a quarantine: what its seller had wished before.
    hold_under: Hold = Hold.NONE
    reason: str
    since_ms: int
    # Since when it is refused for ever; 0 where it is not.
    revoked_ms: int = 0
    facts: HostFacts
    terms: Terms
    reliability_ppm: int = RELIABILITY_PPM_AT_FIRST


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is noted of one that a host was given."""

    # In base 16.
    serial: str
    authority_digest: bytes
    expires_ms: int


@dataclass(frozen=True, kw_only=True)
class HostRoom:
    """A host and what of it is free now: what matching sees."""

    host: Host
    free: tuple[Gpu, ...]
    # What the jobs that are on it asked for; those that leave their share to the host count nothing.
    memory_bytes_taken: int = 0
    cpu_milli_taken: int = 0


def may_run_unisolated(host: Host, account_id: str, account_name: str) -> bool:
    """Without isolation a job has the seller's machine in its hands: only for whom the seller trusts."""
    return account_id == host.account_id or account_name in host.terms.trusted_accounts
