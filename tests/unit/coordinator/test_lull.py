"""Which beats need not be read."""

import pytest

from coordinator.api.lull import BEATS_UNREAD_MAX, Lull
from coordinator.domain.metering import DRIFT_MS, Stamp
from coordinator.domain.states import AttemptState
from coordinator.domain.values import changed
from coordinator.services.synchronize import Report

WINDOW_MS = 40_000
RUNS = Report(attempt_id="att_1", epoch=1, state=AttemptState.RUNNING, container_id="box", run_ms=5_000)
OTHER = changed(RUNS, attempt_id="att_2")


def at(ms: int) -> Stamp:
    return Stamp(boot_id="boot", boot_ms=ms, wall_ms=ms)


@pytest.fixture
def lull() -> Lull:
    made = Lull(WINDOW_MS)
    made.look()
    made.begin([RUNS, OTHER], at(0))
    return made


def test_what_only_goes_on_is_covered(lull: Lull) -> None:
    later = [changed(one, run_ms=one.run_ms + 9_000) for one in (RUNS, OTHER)]
    assert lull.covers(later, at(9_000))
    assert lull.covers([RUNS, OTHER], at(1))


@pytest.mark.parametrize(
    "reports",
    [
        [RUNS],
        [RUNS, OTHER, changed(RUNS, attempt_id="att_3")],
        [OTHER, RUNS],
        [RUNS, changed(OTHER, epoch=2)],
        [RUNS, changed(OTHER, state=AttemptState.STOPPING)],
        [RUNS, changed(OTHER, state=AttemptState.ENDED, exit_code=0)],
        [RUNS, changed(OTHER, container_id="another")],
        [RUNS, changed(OTHER, detail="says something")],
        [RUNS, changed(OTHER, run_ms=OTHER.run_ms - 1)],
        [RUNS, changed(OTHER, run_ms=OTHER.run_ms + 1_000 + DRIFT_MS + 2)],
    ],
)
def test_whatever_else_it_says_is_read(lull: Lull, reports: list[Report]) -> None:
    assert not lull.covers(reports, at(1_000))


def test_a_quarter_of_the_window_is_the_longest(lull: Lull) -> None:
    assert lull.covers([RUNS, OTHER], at(WINDOW_MS // 4))
    assert not lull.covers([RUNS, OTHER], at(WINDOW_MS // 4 + 1))


def test_so_many_in_a_row_and_then_one_is_read(lull: Lull) -> None:
    for _ in range(BEATS_UNREAD_MAX):
        assert lull.covers([RUNS, OTHER], at(1))
        assert lull.passes()
    assert not lull.covers([RUNS, OTHER], at(1))
    assert not lull.passes()
    lull.look()
    # It is being read: until it is known what it brings, nothing is covered by it.
    assert not lull.covers([RUNS, OTHER], at(1))
    assert lull.passes()


def test_after_a_ring_the_next_is_read_whatever_it_says(lull: Lull) -> None:
    lull.end()
    assert not lull.covers([RUNS, OTHER], at(1))
    assert not lull.passes()
