"""The hours in which jobs may run: as a seller writes them, in local time, and as they are told."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
WINDOWS_MAX = 64
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = f"(?:{'|'.join(_DAYS)})"
_FORM = re.compile(
    rf"(?:(?P<days>{_DAY}(?:-{_DAY})?(?:,{_DAY}(?:-{_DAY})?)*) )?"
    r"(?P<h1>[0-9]{2}):(?P<m1>[0-9]{2})-(?P<h2>[0-9]{2}):(?P<m2>[0-9]{2})"
)


@dataclass(frozen=True, kw_only=True)
class SaleWindow:
    """Minutes since Monday 00:00; an end at or before the start is in the next week."""

    start_minute: int
    end_minute: int

    def earlier(self, minutes: int) -> "SaleWindow":
        return SaleWindow(
            start_minute=(self.start_minute - minutes) % WEEK_MINUTES,
            end_minute=(self.end_minute - minutes) % WEEK_MINUTES,
        )


def parse_hours(text: str) -> list[SaleWindow]:
    """ "mon-fri 22:00-06:00", "sat,sun 00:00-24:00"; without days, every day. Raises ValueError."""
    found = _FORM.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f'{text!r} is not like "mon-fri 22:00-06:00"')
    begin, end = _minute(found["h1"], found["m1"]), _minute(found["h2"], found["m2"])
    if begin == DAY_MINUTES:
        raise ValueError(f"{text!r} begins at the end of a day")
    length = (end - begin) % DAY_MINUTES or DAY_MINUTES
    return [
        SaleWindow(
            start_minute=day * DAY_MINUTES + begin,
            end_minute=(day * DAY_MINUTES + begin + length) % WEEK_MINUTES,
        )
        for day in _days(found["days"] or "mon-sun")
    ]


def in_utc(hours: Iterable[SaleWindow], offset_minutes: int) -> Sequence[SaleWindow]:
    """Local time is so many minutes ahead of UTC."""
    return tuple(window.earlier(offset_minutes) for window in hours)


def _minute(hour: str, minute: str) -> int:
    value = int(hour) * 60 + int(minute)
    if int(minute) > 59 or value > DAY_MINUTES:
        raise ValueError(f"{hour}:{minute} is no time of day")
    return value


def _days(text: str) -> list[int]:
    days: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin = _DAYS.index(first)
        days += [(begin + n) % 7 for n in range((_DAYS.index(last or first) - begin) % 7 + 1)]
    return days
