"""Beats that say no more than that time has passed are answered from memory, a few of them in a row.

Nothing is lost with them when the coordinator dies: the next beat that is read witnesses the whole time since
the last one that was, and usage that comes in between shows the run as well.
"""

from collections.abc import Sequence

from coordinator.domain.metering import Stamp, drift_ms, elapsed_ms
from coordinator.domain.values import changed
from coordinator.services.synchronize import Report

# After so many beats we look all the same.
BEATS_UNREAD_MAX = 12
# Nor longer than this part of the reconnect window: a beat that was not read is no witness yet.
WINDOW_PARTS = 4


class Lull:
    def __init__(self, window_ms: int) -> None:
        self._window_ms = window_ms
        self._read: tuple[Sequence[Report], Stamp] | None = None
        self._unread = 0

    def begin(self, reports: Sequence[Report], now: Stamp) -> None:
        """This was read, and brought no news: what runs goes on, far from its limits."""
        self._read = reports, now

    def end(self) -> None:
        """The next beat is to be read, whatever it says."""
        self._read, self._unread = None, BEATS_UNREAD_MAX

    def passes(self) -> bool:
        """Over a beat that brings no news, for once; else it is to be read."""
        if self._unread >= BEATS_UNREAD_MAX:
            return False
        self._unread += 1
        return True

    def look(self) -> None:
        """A beat is being read."""
        self._read, self._unread = None, 0

    def covers(self, reports: Sequence[Report], now: Stamp) -> bool:
        """It says what was read last, but for the time that has passed."""
        if self._read is None or self._unread >= BEATS_UNREAD_MAX:
            return False
        before, since = self._read
        passed_ms = elapsed_ms(since, now)
        return (
            passed_ms * WINDOW_PARTS <= self._window_ms
            and len(before) == len(reports)
            and all(_goes_on(old, new, passed_ms) for old, new in zip(before, reports, strict=True))
        )


def _goes_on(before: Report, after: Report, passed_ms: int) -> bool:
    more_ms = after.run_ms - before.run_ms
    return 0 <= more_ms <= passed_ms + drift_ms(passed_ms) and changed(after, run_ms=before.run_ms) == before
