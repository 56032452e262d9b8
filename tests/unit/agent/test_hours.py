"""The hours of a seller: as they are written, and as they are told."""

import pytest

from agent.domain.hours import SaleWindow, in_utc, parse_hours

DAY = 1_440


def starts(text: str) -> list[tuple[int, int]]:
    return [(window.start_minute, window.end_minute) for window in parse_hours(text)]


@pytest.mark.parametrize(
    ("text", "windows"),
    [
        ("mon 09:00-17:30", [(540, 1_050)]),
        ("mon 22:00-06:00", [(1_320, DAY + 360)]),
        ("sun 22:00-06:00", [(6 * DAY + 1_320, 360)]),
        ("sat,sun 00:00-24:00", [(5 * DAY, 6 * DAY), (6 * DAY, 0)]),
        ("sat-mon 01:00-02:00", [(5 * DAY + 60, 5 * DAY + 120), (6 * DAY + 60, 6 * DAY + 120), (60, 120)]),
        ("12:00-13:00", [(day * DAY + 720, day * DAY + 780) for day in range(7)]),
        ("Mon 12:00-12:00", [(720, DAY + 720)]),
    ],
)
def test_what_is_written_is_meant(text, windows):
    assert starts(text) == windows


@pytest.mark.parametrize(
    "text", ["", "mon", "9-17", "mon 25:00-26:00", "mon 24:00-25:00", "mon 09:60-10:00", "day 09:00-10:00"]
)
def test_what_nobody_can_mean_is_refused(text):
    with pytest.raises(ValueError, match=r"is not like|is no time of day|begins at the end"):
        parse_hours(text)


def test_they_are_told_in_utc():
    told = in_utc([SaleWindow(start_minute=60, end_minute=120)], 120)
    assert told == (SaleWindow(start_minute=7 * DAY - 60, end_minute=0),)
    told = in_utc([SaleWindow(start_minute=7 * DAY - 60, end_minute=0)], -300)
    assert told == (SaleWindow(start_minute=240, end_minute=300),)
