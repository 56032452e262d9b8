"""The hours in which a seller sells."""

from datetime import UTC, datetime

import pytest

from coordinator.domain.hours import MINUTE_MS, SaleWindow, open_ms_left, opens_in_ms

HOUR_MS = 60 * MINUTE_MS
DAY = 24 * 60


def at(day: int, hour: int) -> int:
    """A moment of a week whose Monday is the first."""
    return int(datetime(2024, 1, day, hour, tzinfo=UTC).timestamp() * 1_000)


def window(start: tuple[int, int], end: tuple[int, int]) -> SaleWindow:
    return SaleWindow(start_minute=start[0] * DAY + start[1] * 60, end_minute=end[0] * DAY + end[1] * 60)


NIGHTS = tuple(window((day, 22), ((day + 1) % 7, 6)) for day in range(7))
WEEKEND = (window((5, 0), (6, 24)),)


@pytest.mark.parametrize(
    ("hours", "now_ms", "left_hours", "opens_in_hours"),
    [
        ((), at(1, 0), None, 0),
        (NIGHTS, at(1, 21), 0, 1),
        (NIGHTS, at(1, 22), 8, 24),
        (NIGHTS, at(2, 5), 1, 17),
        (NIGHTS, at(2, 6), 0, 16),
        # Sunday to Monday, over the end of the week.
        (NIGHTS, at(7, 23), 7, 23),
        (NIGHTS, at(8, 5), 1, 17),
        (WEEKEND, at(5, 12), 0, 12),
        (WEEKEND, at(6, 0), 48, 168),
        (WEEKEND, at(7, 23), 1, 121),
        # What meets or overlaps is one.
        ((window((0, 0), (0, 6)), window((0, 6), (0, 8)), window((0, 7), (0, 10))), at(1, 5), 5, 1),
        # A whole week, in one piece and in two.
        ((window((3, 0), (3, 0)),), at(1, 0), None, 72),
        ((window((0, 0), (4, 0)), window((4, 0), (0, 0))), at(2, 0), None, 72),
    ],
)
def test_how_long_it_is_open_and_when_it_opens(hours, now_ms, left_hours, opens_in_hours):
    left_ms = open_ms_left(hours, now_ms)
    assert left_ms == (None if left_hours is None else left_hours * HOUR_MS)
    assert opens_in_ms(hours, now_ms) == opens_in_hours * HOUR_MS


def test_it_is_exact_to_the_millisecond():
    hours = (window((0, 1), (0, 2)),)
    assert open_ms_left(hours, at(1, 1) - 1) == 0
    assert open_ms_left(hours, at(1, 1)) == HOUR_MS
    assert open_ms_left(hours, at(1, 2) - 1) == 1
    assert open_ms_left(hours, at(1, 2)) == 0
