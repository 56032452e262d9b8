"""A market of real processes under abuse, for about a minute. `make chaos` goes on for longer."""

import pytest

from tests.chaos.play import play
from tests.rig.fixtures import parts_needed

pytestmark = [pytest.mark.slow, pytest.mark.docker, pytest.mark.postgres, pytest.mark.nvml]

SEED, LENGTH_S = 1, 40.0


def test_the_promises_hold_under_chaos():
    with parts_needed():
        outcome = play(SEED, LENGTH_S, print)
    assert outcome.violations == []
    assert sum(outcome.faults.values()) >= 5, "it was calm"
    assert all(outcome.witnessed), "nobody was watched"
    assert outcome.looks > 0
