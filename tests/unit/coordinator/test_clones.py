"""Two machines with one identity are told from one that comes and goes."""

import pytest

from coordinator.domain.clones import ARRIVALS_KEPT, WINDOW_MS, Arrival, are_two, with_arrival


def arrivals(runs: str, every_ms: int = 1_000):
    found: tuple[Arrival, ...] = ()
    for number, run in enumerate(runs):
        found = with_arrival(found, run, number * every_ms)
    return found


@pytest.mark.parametrize(
    ("runs", "two"),
    [
        ("", False),
        ("aaaaaaaaaaaa", False),  # a bad line
        ("abcdefghijklmnopq", False),  # restarted again and again
        ("aba", False),  # set back to a snapshot
        ("aababb", False),
        ("ababa", True),
        ("aabbaabbaa", True),
        ("abacad", False),
        ("abcabc", True),
        ("xxababab", True),
    ],
)
def test_only_runs_that_keep_coming_back_are_of_two(runs, two):
    assert are_two(arrivals(runs)) is two


def test_what_was_long_ago_does_not_count():
    assert not are_two(arrivals("ababababab", every_ms=WINDOW_MS // 2 + 1))


def test_no_more_is_kept_than_is_needed():
    assert len(arrivals("ab" * 100)) == ARRIVALS_KEPT
