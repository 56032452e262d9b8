"""What the agent says of its machine and on what terms it sells it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from agent.domain.attempt import Isolation, Network
from agent.domain.gpu import GpuInfo
from agent.domain.health import Condition, GpuHealth
from agent.domain.hours import SaleWindow

ANY_MODEL = "*"


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """What the machine has."""

    hostname: str
    cpu_count: int
    memory_bytes: int
    disk_free_bytes: int
    gpus: tuple[GpuInfo, ...]
    isolation: Isolation
    executor: str
    driver_version: str
    # The highest that the driver takes, "12.4"; empty without a driver.
    cuda_version: str
    region: str
    labels: Mapping[str, str]
    # As the seller says; None where nothing is said.
    download_bps: int | None = None
    upload_bps: int | None = None
    # How each GPU is, by UUID; those that are not named are well.
    gpu_healths: Mapping[str, GpuHealth] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what terms the seller sells. A GPU whose model has no price is not for sale."""

    gpu_hour_prices_micro: Mapping[str, int]
    run_ms_max: int
    trusted_accounts: tuple[str, ...]
    reclaim_notice_ms: int
    network_max: Network = Network.NONE
    # Only with ALLOW_LIST: what a job may ask for.
    network_destinations: tuple[str, ...] = ()
    # In UTC; none for always.
    hours: tuple[SaleWindow, ...] = ()
    images_allowed: tuple[str, ...] = ()
    images_denied: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Hello:
    """Who speaks, and what it has to sell."""

    agent_version: str
    boot_id: str
    facts: HostFacts
    terms: Terms
    # Names this run of the agent.
    instance: str = ""


def is_offered(gpu: GpuInfo, chosen: Collection[str]) -> bool:
    """Does the seller sell this GPU? Without a choice, all; of a divided one that was chosen, each slice."""
    return not chosen or gpu.uuid in chosen or gpu.board in chosen


def kept_back(health: GpuHealth, *, offered: bool) -> GpuHealth:
    """What its owner does not offer gets no new job; one that has it already goes on."""
    if offered or health.condition is not Condition.HEALTHY:
        return health
    return GpuHealth(condition=Condition.DEGRADED, reason="its owner does not offer it")


def prices_of(gpus: Iterable[GpuInfo], configured_micro: Mapping[str, int]) -> dict[str, int]:
    """The price of each model that is here and for sale; "*" prices all others, and 0 is no price."""
    prices = {}
    for gpu in gpus:
        price = configured_micro.get(gpu.model, configured_micro.get(ANY_MODEL))
        if price:
            prices[gpu.model] = price
    return prices
