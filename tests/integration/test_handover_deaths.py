"""Coordinators that die while one hands a market over to the other."""

from pathlib import Path

import pytest

from tests.rig.parts import wait_until
from tests.support.handing_over import ASKS, DRAINS, LEAVES, LETS_IN, SITS, WAIT_S, kill, market


@pytest.mark.slow
@pytest.mark.parametrize("words", [ASKS, DRAINS, LETS_IN, SITS])
def test_the_next_one_dies_on_its_way(words: str, tmp_path: Path) -> None:
    """At whichever step: the first goes on, or has gone, and then one that is started serves at once."""
    with market(tmp_path, 10, record_ms=300, beat_interval_ms=10_000) as here:
        first, following = here.coordinators[0], here.spawn("--take-over")
        here.until_said(words)
        kill(following)
        if words in {ASKS, DRAINS}:
            here.until_said("goes on serving")
            assert first.poll() is None
            here.start("--take-over")
        else:
            # It had been let in: whether the first one still waits for its word is chance.
            wait_until(
                lambda: first.poll() is not None or here.said("goes on serving") > 0,
                "the first one has decided",
                deadline_s=WAIT_S,
            )
            here.start("--take-over")
        assert first.wait(WAIT_S) == 0
        here.check(here.finish(), 10)


@pytest.mark.slow
@pytest.mark.parametrize("words", [ASKS, DRAINS, LETS_IN, LEAVES])
def test_the_first_one_dies_while_it_hands_over(words: str, tmp_path: Path) -> None:
    with market(tmp_path, 10, record_ms=300, beat_interval_ms=10_000) as here:
        following = here.spawn("--take-over")
        here.until_said(words)
        kill(here.coordinators[0])
        here.until_said("ready market=", times=2)
        here.check(here.finish(), 10)
        assert following.returncode == 0
