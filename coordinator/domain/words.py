"""Amounts in sentences, written so that they can be typed back as they stand."""

from coordinator.domain.host import Network
from coordinator.domain.job import JobSpec

_DESTINATIONS_TOLD_MAX = 3
# By the steps that a host gives above no network at all.
NETWORK_REMEDIES = ("no network would do", "fewer destinations would do", "")
_UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000))
_MIB, _GIB = 1 << 20, 1 << 30
_SECOND_MS = 1_000


def amount(micro: int) -> str:
    """Credits: at least two decimals, exact."""
    whole, rest = divmod(micro, 1_000_000)
    return f"{whole}.{f'{rest:06}'.rstrip('0').ljust(2, '0')}"


def size(count: int) -> str:
    """Whole GiB where it is one, MiB otherwise; the part of a MiB is left out."""
    return f"{count // _GIB}GiB" if count % _GIB == 0 else f"{count // _MIB}MiB"


def size_told(count: int) -> int:
    """The bytes that `size` says."""
    return count // _MIB * _MIB


def duration(ms: int) -> str:
    """In the largest unit that says it exactly; the part of a second is left out."""
    told = duration_told(ms)
    for unit, unit_ms in _UNITS_MS:
        if told and told % unit_ms == 0:
            return f"{told // unit_ms}{unit}"
    return "0s"


def duration_told(ms: int) -> int:
    """The milliseconds that `duration` says."""
    return ms // _SECOND_MS * _SECOND_MS


def processors(milli: int) -> str:
    """Thousandths of a processor as processors: 1500 is "1.5"."""
    whole, rest = divmod(milli, 1_000)
    return f"{whole}.{rest:03}".rstrip("0").rstrip(".")


def percent(ppm: int) -> str:
    """Parts per million in percent, exact: 995000 is "99.5%"."""
    whole, rest = divmod(ppm, 10_000)
    return f"{whole}.{rest:04}".rstrip("0").rstrip(".") + "%"


def reach(spec: JobSpec) -> str:
    """What the order says that its command must reach."""
    if spec.network is Network.ALLOW_LIST:
        more = ", …" if len(spec.network_destinations) > _DESTINATIONS_TOLD_MAX else ""
        return ", ".join(spec.network_destinations[:_DESTINATIONS_TOLD_MAX]) + more
    return "the internet"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
