"""What a buyer may ask of hosts and their GPUs, and of the choice among them."""

from dataclasses import dataclass
from enum import StrEnum


class Policy(StrEnum):
    """Which of the hosts that fit gets the job."""

    UNSPECIFIED = "UNSPECIFIED"
    BALANCED = "BALANCED"
    CHEAPEST = "CHEAPEST"
    FASTEST_START = "FASTEST_START"
    MOST_RELIABLE = "MOST_RELIABLE"


class OnHostLoss(StrEnum):
    """What is wanted when the host of a running job falls silent."""

    UNSPECIFIED = "UNSPECIFIED"
    WAIT = "WAIT"
    REPLACE = "REPLACE"
    FAIL = "FAIL"


class Network(StrEnum):
    """How much of the network a job may reach."""

    UNSPECIFIED = "UNSPECIFIED"
    NONE = "NONE"
    ALLOW_LIST = "ALLOW_LIST"
    INTERNET = "INTERNET"


class OfferOrder(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    PRICE = "PRICE"
    RELIABILITY = "RELIABILITY"
    VRAM = "VRAM"
    COUNT = "COUNT"


@dataclass(frozen=True, kw_only=True)
class GpuRequest:
    count: int = 1
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
    labels: tuple[tuple[str, str], ...] = ()


ANY_HOST = HostRequest()


@dataclass(frozen=True, kw_only=True, repr=False)
class Confidential:
    """What nobody but the job may see, and who fetches its image. It is never shown, nor in any JSON."""

    # Each a file of that name in /run/secrets.
    secrets: tuple[tuple[str, bytes], ...] = ()
    registry_user: str = ""
    registry_password: str = ""

    def __bool__(self) -> bool:
        return self != NOTHING


NOTHING = Confidential()
