"""The rest of the fixed seeds, for another worker; and that a number is one run, thin or whole."""

import pytest

from tests.sim.world import play


@pytest.mark.parametrize("seed", range(13, 19))
def test_the_promises_hold(seed):
    outcome = play(seed)
    assert outcome.violations == [], f"see it again: python -m tests.sim --first {seed} --seeds 1 --story"


def test_a_seed_is_one_run():
    first, second = play(7), play(7, is_whole=True)
    assert first.story == second.story
    assert first.steps == second.steps
    # A market in which nobody meets anybody keeps all its promises.
    assert [kind for kind in first.seen if kind.startswith("attempt ended")]
