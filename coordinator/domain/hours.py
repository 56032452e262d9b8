"""When a seller sells: stretches of the week, in UTC.

Hours say when a job may run, not only when it may begin: one whose time limit outlasts them is not placed.
What runs is never ended for them, so nobody loses work because an image took its time or a bill was extended.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MINUTE_MS = 60_000
WEEK_MINUTES = 7 * 24 * 60
_WEEK_MS = WEEK_MINUTES * MINUTE_MS
# 1970 began on a Thursday, the week begins on a Monday.
_MONDAY_MS = 3 * 24 * 60 * MINUTE_MS


@dataclass(frozen=True, kw_only=True, order=True)
class SaleWindow:
    """Minutes since Monday 00:00 UTC; an end at or before the start is in the next week."""

    start_minute: int
    end_minute: int

    @property
    def length_ms(self) -> int:
        return ((self.end_minute - self.start_minute) % WEEK_MINUTES or WEEK_MINUTES) * MINUTE_MS

    def since_ms(self, week_ms: int) -> int:
        """How long ago it began last."""
        return (week_ms - self.start_minute * MINUTE_MS) % _WEEK_MS


def open_ms_left(hours: Sequence[SaleWindow], now_ms: int) -> int | None:
    """How long jobs may still run; 0 outside the hours, None where they never end."""
    week_ms = (now_ms + _MONDAY_MS) % _WEEK_MS
    left_ms = 0
    while left_ms < _WEEK_MS:
        more_ms = max((w.length_ms - w.since_ms(week_ms + left_ms) for w in hours), default=_WEEK_MS)
        if more_ms <= 0:
            return left_ms
        left_ms += more_ms
    return None


def opens_in_ms(hours: Sequence[SaleWindow], now_ms: int) -> int:
    """How long until the next of them begins."""
    week_ms = (now_ms + _MONDAY_MS) % _WEEK_MS
    return min((_WEEK_MS - w.since_ms(week_ms) for w in hours), default=0)
