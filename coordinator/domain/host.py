"""What a host is and on what terms it sells."""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum


class HostState(StrEnum):
    ONLINE = "online"
    SUSPECT = "suspect"
    LOST = "lost"


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


@dataclass(frozen=True, kw_only=True)
class Gpu:
    uuid: str
    model: str
    vram_bytes: int
    simulated: bool = False
    compute_capability: str = ""


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


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The seller's. `prices` maps a GPU model to its price for one GPU for one hour."""

    prices: dict[str, int] = field(default_factory=dict)
    run_ms_max: int = 0
    trusted_accounts: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Host:
    id: str
    account_id: str
    account_name: str
    # What buyers are told; of the two below it, the one that matters more.
    state: HostState
    link: HostState
    hold: Hold
    reason: str
    since_ms: int
    facts: HostFacts
    terms: Terms
    reliability_ppm: int


@dataclass(frozen=True, kw_only=True)
class HostRoom:
    """A host and what of it is free now: what matching sees."""

    host: Host
    free: tuple[Gpu, ...]


def may_run_unisolated(host: Host, account_id: str, account_name: str) -> bool:
    """Without isolation a job has the seller's machine in its hands: only for whom the seller trusts."""
    return account_id == host.account_id or account_name in host.terms.trusted_accounts
