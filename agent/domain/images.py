"""Which images stay on a host's disk, and how much of it a pull may take."""

from collections.abc import Iterable
from dataclasses import dataclass

GB = 1_000_000_000
_RECENT_MS = 86_400_000


@dataclass(frozen=True, kw_only=True)
class ImagePolicy:
    """What the seller gives to images."""

    # Of the disk, always left free.
    reserve_bytes: int = 10 * GB
    # The largest image, unpacked.
    image_bytes_max: int = 100 * GB
    # May a job name an image that no registry has but this machine?
    local_images: bool = False


@dataclass(frozen=True, kw_only=True)
class CachedImage:
    """An image that we have fetched, and what it was good for."""

    image_id: str
    uses: int
    used_at_ms: int
    # Its registry gave it for somebody's credentials, not to everybody.
    is_private: bool = False


def evictions(images: Iterable[CachedImage], now_ms: int) -> list[CachedImage]:
    """In the order in which they go when there is no room: what jobs come back for pays, and stays."""

    def worth(image: CachedImage) -> tuple[bool, int, int]:
        return (now_ms - image.used_at_ms < _RECENT_MS, image.uses, image.used_at_ms)

    return sorted(images, key=worth)


def is_too_full(free_bytes: int, policy: ImagePolicy) -> bool:
    """Must nothing more be written?"""
    return free_bytes < policy.reserve_bytes


def is_short(free_bytes: int, policy: ImagePolicy) -> bool:
    """Could the next image be the one that fills the disk?"""
    return free_bytes < policy.reserve_bytes + policy.image_bytes_max


def why_too_large(taken_bytes: int, policy: ImagePolicy) -> str:
    """What to say of an image that has taken so much of the disk by now; empty where it may."""
    if taken_bytes <= policy.image_bytes_max:
        return ""
    most = policy.image_bytes_max / GB
    return f"the image unpacks to more than {most:g} GB, which is the most that this host takes"
