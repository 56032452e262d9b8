"""From one coordinator to the next, with real processes: no usage record is lost, and no job notices."""

from pathlib import Path

import pytest

from tests.rig.parts import stop
from tests.support.handing_over import DRAINS, WAIT_S, market


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database", "hosts"),
    [("sqlite", 1_000), pytest.param("postgres", 250, marks=pytest.mark.postgres)],
)
def test_agents_move_and_no_job_notices(
    database: str, hosts: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgres" else ""
    with market(tmp_path, hosts, record_ms=4_000, beat_interval_ms=5_000, database=url) as here:
        first = here.coordinators[0]
        here.start("--take-over")
        assert first.wait(WAIT_S) == 0
        seen = here.finish()
        here.check(seen, hosts)

    # That none has to try again, and how long each is without a stream, is for `benchmarks.wire` to say.
    assert seen["connections"] >= 2 * hosts


@pytest.mark.slow
def test_a_stop_and_a_start_lose_nothing_either(tmp_path: Path) -> None:
    with market(tmp_path, 50, record_ms=500, beat_interval_ms=10_000) as here:
        stop(here.coordinators[0], deadline_s=WAIT_S)
        assert here.coordinators[0].returncode == 0
        here.start()
        here.check(here.finish(), 50)


def test_one_coordinator_at_a_time_keeps_a_market(tmp_path: Path) -> None:
    with market(tmp_path, 1, record_ms=1_000, beat_interval_ms=10_000) as here:
        second = here.spawn()
        assert second.wait(WAIT_S) == 2
        assert here.said("another coordinator keeps this market (process ") == 1
        assert here.said("relieve it with --take-over") == 1


def test_a_next_one_that_is_stopped_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    with market(tmp_path, 1, record_ms=300, beat_interval_ms=10_000) as here:
        following = here.spawn("--take-over")
        here.until_said(DRAINS)
        stop(following)
        assert following.returncode == 0
        here.until_said("goes on serving")
        here.check(here.finish(), 1)
