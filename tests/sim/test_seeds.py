"""Markets under abuse, each replayed from its number. `make sim SEEDS=1000` plays more."""

import pytest

from tests.sim.world import play


@pytest.mark.parametrize("seed", range(1, 13))
def test_the_promises_hold(seed):
    outcome = play(seed)
    assert outcome.violations == [], f"see it again: python -m tests.sim --first {seed} --seeds 1 --story"
