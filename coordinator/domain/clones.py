"""Two machines with one identity, as a copied disk makes them: seen in how they take turns.

Each run of an agent has a name that no other run ever has, and a newer run means that the older is over. So
one that comes back after another has spoken was not over: both live. A machine that was set back to an
earlier moment can do so once; two machines go on doing it, for each supersedes the other.
"""

from dataclasses import dataclass

WINDOW_MS = 3_600_000
RETURNS_MAX = 2
# More are not needed to tell.
ARRIVALS_KEPT = 16


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A run of an agent, by its own word, that was not the last to be heard."""

    run: str
    at_ms: int


def with_arrival(arrivals: tuple[Arrival, ...], run: str, now_ms: int) -> tuple[Arrival, ...]:
    """Who came within the window, in order. Whoever comes again with nobody in between came once."""
    recent = tuple(arrival for arrival in arrivals if now_ms - arrival.at_ms <= WINDOW_MS)
    if recent and recent[-1].run == run:
        return recent
    return (*recent, Arrival(run=run, at_ms=now_ms))[-ARRIVALS_KEPT:]


def are_two(arrivals: tuple[Arrival, ...]) -> bool:
    """Did runs come back more often than an accident explains?"""
    runs = [arrival.run for arrival in arrivals]
    return sum(run in runs[:place] for place, run in enumerate(runs)) > RETURNS_MAX
