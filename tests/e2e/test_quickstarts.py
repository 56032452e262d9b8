"""The quick starts as they are written, and a buyer's first ten minutes as they were recorded."""

import pytest

from tests.docs.sessions import SESSION, differences, page, play, set_up
from tests.support.town import ROOT, Town, blocks

pytestmark = pytest.mark.slow
LINES_MAX = 80


@pytest.fixture
def town(tmp_path):
    town = Town(tmp_path / "town")
    yield town
    town.stop()


def test_the_quick_starts_and_the_recorded_session_are_current(town):
    """One market for all of it: operator and seller set it up, then two buyers come."""
    set_up(town)
    found = differences(SESSION.read_text(encoding="utf-8"), page(play(town)))
    assert not found, "\n".join(["run `make sessions`:", *found])
    said = [town.sh("somebody", commands) for commands in blocks(ROOT / "docs/quickstart-buyer.md")]
    assert "42\n" in said[2]
    assert "it ended with 118" in said[3]
    assert "verified: " in said[4]
    assert "\n10\n" in said[5]
    assert "0 violations found" in town.sh("operator", "usance admin audit")


@pytest.mark.parametrize("name", ["operator", "seller", "buyer"])
def test_a_quick_start_fits_on_a_page(name):
    assert len((ROOT / f"docs/quickstart-{name}.md").read_text(encoding="utf-8").splitlines()) <= LINES_MAX
