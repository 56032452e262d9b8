"""Months of UTC, and what is shown of tokens."""

from datetime import UTC, datetime

import pytest

from cli.books import Movement, Period, TokenFacts
from cli.overviews import tokens_screen
from cli.parse import parse_month
from cli.render import lay_out
from cli.reports import csv_lines, month_period, statement_csv


def ms(year, month, day, hour=0, minute=0, second=0):
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()) * 1_000


@pytest.mark.parametrize(
    ("month", "since", "until"),
    [
        ("2026-11", (2026, 11, 1), (2026, 12, 1)),
        ("2026-12", (2026, 12, 1), (2027, 1, 1)),
        ("2024-02", (2024, 2, 1), (2024, 3, 1)),
        ("this", (2026, 1, 1), (2026, 2, 1)),
        ("last", (2025, 12, 1), (2026, 1, 1)),
    ],
)
def test_a_month_is_from_its_first_moment_to_the_next_ones(month, since, until):
    now_ms = ms(2026, 1, 31, 23, 59, 59)
    assert month_period(parse_month(month), now_ms) == Period(since_ms=ms(*since), until_ms=ms(*until))


def test_the_ends_of_the_calendar_are_no_trap():
    assert month_period("9999-12", 0) == Period(since_ms=ms(9999, 12, 1), until_ms=0)
    assert month_period("0001-01", 0).since_ms == 0


def token(**changes):
    plain = {
        "token_id": "tok_1",
        "label": "",
        "created_at_ms": 1,
        "expires_at_ms": 10,
        "revoked_at_ms": 0,
        "current": False,
    }
    return TokenFacts(**{**plain, **changes})


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "good"),
        ({"current": True}, "good, and the one you use"),
        ({"expires_at_ms": 5}, "expired"),
        ({"revoked_at_ms": 3, "current": True}, "revoked"),
    ],
)
def test_a_token_says_whether_it_is_good(changes, state):
    assert state in lay_out(tokens_screen([token(**changes)], 5))[1]


def test_no_tokens_is_an_answer():
    assert tokens_screen([], 5) == ["no tokens"]


def test_csv_holds_no_control_characters_and_breaks_no_cell():
    assert csv_lines(("a",), [("x\u2028y",)]) == ["a", "x\u2028y"]
    told = Movement(
        transfer_id="t",
        kind="deposit",
        delta_micro=1,
        balance_micro=1,
        job_id="",
        reason="a\x1b[2J\rb",
        posted_at_ms=0,
    )
    (line,) = statement_csv([told])[1:]
    assert "a\\x1b[2J\\rb" in line
