"""How a host stands: whether it is heard, whether somebody holds it back, and how it kept its promises."""

from coordinator.domain.host import Hold, HostState

_PPM = 1_000_000
# Each attempt weighs a twentieth of all before it, so a hundred good ones outlive a bad day.
_WEIGHT = 20


_HELD = {
    Hold.PAUSED: HostState.PAUSED,
    Hold.DRAINING: HostState.DRAINING,
    Hold.QUARANTINED: HostState.QUARANTINED,
}


def host_state(link: HostState, hold: Hold) -> HostState:
    """The one word for both. Distrust outranks silence, and silence outranks the seller's wishes."""
    if hold is Hold.QUARANTINED:
        return HostState.QUARANTINED
    if link is not HostState.ONLINE:
        return link
    return _HELD.get(hold, HostState.ONLINE)


def reliability_after(ppm: int, *, host_at_fault: bool) -> int:
    """After one more attempt. Anybody can compute it again from the host's ended attempts, in order."""
    return ppm - ppm // _WEIGHT + (0 if host_at_fault else _PPM // _WEIGHT)
