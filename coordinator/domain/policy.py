"""Which of the hosts that fit is the best, by the buyer's policy.

Each policy gives a shelf a score, and the lowest wins. Among equal scores the shelf with the fewest free GPUs
wins, so that big slots stay whole; then the cheapest; then the name, so that one market has one answer. No
score depends on what is free or on the job: shelves can be kept sorted.
"""

from collections.abc import Callable
from dataclasses import dataclass

from coordinator.domain.host import RELIABILITY_PPM_MAX, Host, Isolation
from coordinator.domain.job import Policy
from coordinator.domain.shelf import Shelf

# One percent of failures weighs as much as two percent of price; a minute until the start as one percent.
_RISK_WEIGHT = 2
_START_MS_PER_PPM = 6
# No start is expected to take longer; what is slower is as bad.
START_MS_MAX = 600_000
# What an image has that nobody knows better of, and the line of a host that was not measured.
_IMAGE_BITS = 16_000_000_000
_DOWNLOAD_BPS_ASSUMED = 50_000_000
_CONTAINER_START_MS = 1_000

OrderKey = tuple[int, int, int, str, str]


@dataclass(frozen=True, kw_only=True)
class Preference:
    """`score_max` is the highest score that a shelf of at most the given price can have."""

    score: Callable[[Shelf], int]
    score_max: Callable[[int], int]


def start_ms(host: Host) -> int:
    """How long until a command runs there: a container's image must be fetched first."""
    if host.facts.isolation is Isolation.PROCESS:
        return 0
    bps = host.facts.download_bps or _DOWNLOAD_BPS_ASSUMED
    return min(START_MS_MAX, _CONTAINER_START_MS + _IMAGE_BITS * 1_000 // bps)


def step(value: int) -> int:
    """Steps of two to three percent, so that what is about equal is equal and the better fit decides."""
    shift = max(0, value.bit_length() - 6)
    return (shift << 5) + (value >> shift)


def _weighed(price: int, risk_ppm: int, wait_ms: int) -> int:
    ppm = RELIABILITY_PPM_MAX + _RISK_WEIGHT * risk_ppm + wait_ms // _START_MS_PER_PPM
    return price * ppm // RELIABILITY_PPM_MAX


def _balanced(shelf: Shelf) -> int:
    machine = shelf.machine
    risk_ppm = RELIABILITY_PPM_MAX - machine.reliability_ppm
    return step(_weighed(shelf.price, risk_ppm, start_ms(machine.host)))


def _any_price(_price: int) -> int:
    return 1 << 62


PREFERENCES: dict[Policy, Preference] = {
    Policy.BALANCED: Preference(
        score=_balanced,
        score_max=lambda price: step(_weighed(price, RELIABILITY_PPM_MAX, START_MS_MAX)),
    ),
    Policy.CHEAPEST: Preference(score=lambda shelf: shelf.price, score_max=lambda price: price),
    # To the second: less is not known.
    Policy.FASTEST_START: Preference(
        score=lambda shelf: start_ms(shelf.machine.host) // 1_000, score_max=_any_price
    ),
    # To a thousandth, which is about what the figure is good for.
    Policy.MOST_RELIABLE: Preference(
        score=lambda shelf: -(shelf.machine.reliability_ppm // 1_000), score_max=_any_price
    ),
}


def order_key(policy: Policy) -> Callable[[Shelf], OrderKey]:
    return lambda shelf: (
        score_of(policy, shelf),
        len(shelf.free),
        shelf.price,
        shelf.host_id,
        shelf.model,
    )


def score_of(policy: Policy, shelf: Shelf) -> int:
    score = shelf.scores.get(policy)
    if score is None:
        score = shelf.scores[policy] = PREFERENCES[policy].score(shelf)
    return score
