"""The verbs for many at once do what those for one do, on both databases."""

from dataclasses import replace

from coordinator.domain.host import HostState
from coordinator.domain.metering import Stamp
from coordinator.domain.states import JobState
from coordinator.store.database import SqlTransaction
from tests.support.values import attempt

LATER = Stamp(boot_id="boot", boot_ms=9_000, wall_ms=9_000)


def test_attempts_and_jobs_are_found_together(market: SqlTransaction) -> None:
    market.insert_attempt(attempt())
    assert market.attempts(["att_1", "att_0"]) == {"att_1": attempt()}
    assert market.jobs(["job_0"]) == {}
    assert market.jobs(["job_1", "job_0"]) == {"job_1": market.job("job_1")}
    assert market.attempts_on_hosts(["host_1", "host_0"]) == {"host_1": [attempt()]}


def test_meters_are_written_over_what_was_read_alone(market: SqlTransaction) -> None:
    market.insert_attempt(attempt())
    meter = replace(attempt().meter, sighted=LATER, witnessed_ms=7)
    after = replace(attempt(), meter=meter, paid_through_ms=8, run_ms_reported=9)
    assert market.save_meters([])
    assert market.save_meters([(attempt(), after)])
    found = market.attempt("att_1")
    assert found is not None
    assert (found.meter.sighted, found.meter.witnessed_ms) == (LATER, 7)
    assert (found.paid_through_ms, found.run_ms_reported) == (8, 9)
    assert not market.save_meters([(replace(after, log_offset=1), after)])


def test_charges_are_added_to_live_jobs_alone(market: SqlTransaction) -> None:
    before = market.job("job_1")
    assert before is not None
    assert market.add_charges({}) == {}
    assert market.add_charges({"job_1": 7}) == {"job_1": before.state}
    after = replace(before, charged_micro=before.charged_micro + 7)
    assert market.job("job_1") == after
    ended = replace(after, state=JobState.SUCCEEDED, ended_ms=9)
    assert market.save_job(after, ended)
    assert market.add_charges({"job_1": 1}) == {}
    assert market.job("job_1") == ended


def test_lines_of_many_attempts_are_written_together(market: SqlTransaction) -> None:
    market.insert_attempt(attempt())
    market.insert_all_lines([])
    assert market.lines_of(["att_1"]) == {"att_1": []}


def test_who_is_heard_is_written_down_and_who_was_away_is_told(market: SqlTransaction) -> None:
    before = {host_id: state for host_id, state, _ in market.hosts_seen()}
    away = market.save_all_seen({"host_1": LATER})
    assert list(away) == ([] if before.get("host_1") is HostState.ONLINE else ["host_1"])
    assert market.save_all_seen({}) == []
