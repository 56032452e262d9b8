"""What the coordinator suggests can be typed at the command line as it stands, and means the same there."""

import re
from pathlib import Path

import pytest

from cli import parse
from cli.commands.run import run
from coordinator.domain import changes, words


def test_every_option_that_is_named_is_one_of_run():
    named = set(re.findall(r"--[a-z-]+", Path(changes.__file__).read_text()))
    assert len(named) > 10
    assert named <= {name for option in run.params for name in option.opts}


@pytest.mark.parametrize("micro", [1, 600_000, 1_234_567, 3_600_000_000])
def test_credits(micro):
    assert parse.parse_credits(words.amount(micro)) == micro


@pytest.mark.parametrize("count", [0, 1 << 20, 24 << 30, 24_564 << 20])
def test_sizes(count):
    assert parse.parse_size(words.size(count)) == count


@pytest.mark.parametrize("ms", [1_000, 90_000, 5_400_000, 86_400_000, 31 * 86_400_000])
def test_durations(ms):
    assert parse.parse_duration(words.duration(ms)) == ms


@pytest.mark.parametrize("milli", [100, 1_500, 4_000, 1_024_000])
def test_processors(milli):
    assert parse.parse_processors(words.processors(milli)) == milli


@pytest.mark.parametrize("ppm", [0, 1, 500, 9_950, 900_000, 995_000, 999_999, 1_000_000])
def test_reliabilities(ppm):
    assert parse.parse_reliability(words.percent(ppm)) == ppm
