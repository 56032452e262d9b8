"""The verbs for many at once do what those for one do, on both databases."""

from dataclasses import replace

from coordinator.domain.host import HostState
from coordinator.domain.job import LogState
from coordinator.domain.metering import Stamp
from coordinator.domain.states import AttemptState, Cause, EndReason, JobState
from coordinator.store.transaction import SqlTransaction
from coordinator.store.unit import UnitTransaction
from ledger.entries import deposit
from runtime.ids import new_uuid
from tests.support.store_fixtures import BUYER, DIGEST
from tests.support.values import attempt, gpu, job, meter

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
    before = market.host_seen("host_1")
    away = market.save_all_seen({"host_1": LATER})
    assert list(away) == ([] if before and before.link is HostState.ONLINE else ["host_1"])
    assert market.save_all_seen({}) == []


def test_jobs_are_written_together_and_saved_over_what_was_read_alone(market: SqlTransaction) -> None:
    two, three = job("job_2"), job("job_3")
    market.insert_jobs([two, three])
    assert market.jobs(["job_2", "job_3", "job_4"]) == {"job_2": two, "job_3": three}
    first = market.job("job_1")
    assert first is not None
    longer = replace(first, spec=replace(first.spec, run_ms_max=7))
    starting = replace(two, state=JobState.STARTING, detail="starts")
    assert market.save_jobs([])
    assert market.save_jobs([(first, longer), (two, starting)])
    assert market.jobs(["job_1", "job_2"]) == {"job_1": longer, "job_2": starting}
    assert not market.save_jobs([(two, starting)])
    assert list(market.queue(9)) == [longer, three]


def test_attempts_whose_gpus_are_in_use_are_left_out(market: SqlTransaction) -> None:
    market.insert_jobs([job("job_2"), job("job_3")])
    of_other = meter(attempt_id="att_2", gpu_uuids=frozenset({"GPU-2"}))
    other = attempt(id="att_2", job_id="job_2", gpus=(gpu("GPU-2"),), meter=of_other)
    same = attempt(id="att_3", job_id="job_3", meter=meter(attempt_id="att_3"))
    assert list(market.insert_attempts([attempt(), other, same])) == ["att_3"]
    assert market.attempts(["att_1", "att_2", "att_3"]).keys() == {"att_1", "att_2"}
    ended = replace(
        attempt(),
        state=AttemptState.ENDED,
        end_reason=EndReason.EXITED,
        cause=Cause.BUYER,
        log_state=LogState.COMPLETE,
    )
    assert market.save_attempts([(attempt(), ended)])
    assert list(market.insert_attempts([same])) == []
    assert market.attempts_on_hosts(["host_1"]) == {"host_1": [other, same]}
    assert list(market.attempts_on_host("host_1")) == [other, same]
    assert market.attempts_of_jobs(["job_1", "job_3"]) == {"job_1": [ended], "job_3": [same]}
    assert not market.save_attempts([(attempt(), ended)])


def test_hosts_are_found_together_and_their_standing_is_kept(market: SqlTransaction) -> None:
    assert market.hosts(["host_1", "host_0"]) == {"host_1": market.host("host_1")}
    market.save_reliability("host_1", 5)
    market.save_seen("host_1", LATER)
    assert market.hosts(["host_1"])["host_1"].reliability_ppm == 5
    assert market.rooms()[0].host.reliability_ppm == 5
    seen = market.host_seen("host_1")
    assert seen is None or seen.at == LATER


def test_what_was_answered_is_remembered_together(market: SqlTransaction) -> None:
    market.remember_all([(BUYER, "r1", DIGEST, "one"), (BUYER, "r2", DIGEST, "two")])
    market.remember(BUYER, "r3", DIGEST, "three")
    asked = [(BUYER, "r1"), (BUYER, "r3"), (BUYER, "r4")]
    assert market.recall_all(asked) == {(BUYER, "r1"): (DIGEST, "one"), (BUYER, "r3"): (DIGEST, "three")}
    assert market.recall(BUYER, "r2") == (DIGEST, "two")


def test_what_is_posted_surely_is_posted(market: SqlTransaction) -> None:
    before = market.wallets([BUYER, "acct_0"])
    assert before == {BUYER: 10_000_000, "acct_0": 0}
    more = deposit(transfer_id=new_uuid(), account_id=BUYER, amount_micro=5, event_ms=1)
    market.post_surely([more], 1)
    assert market.wallets([BUYER])[BUYER] == 10_000_005


def test_the_queue_and_the_hosts_are_read_page_by_page(market: SqlTransaction) -> None:
    market.insert_jobs([job("job_2"), job("job_3"), job("job_4", state=JobState.STARTING)])
    first = market.queue_after("", 2)
    assert ([one.id for one in first.rows], first.last, dict(first.broken)) == (
        ["job_1", "job_2"],
        "job_2",
        {},
    )
    rest = market.queue_after(first.last, 2)
    assert ([one.id for one in rest.rows], rest.last) == (["job_3"], "")
    hosts = market.hosts_after("", 9)
    assert ([one.id for one in hosts.rows], hosts.last) == (["host_1"], "")
    assert market.hosts_after("host_1", 9).rows == []


def test_a_broken_row_is_told_and_its_others_are_read(market: SqlTransaction) -> None:
    market.insert_jobs([job("job_2")])
    market.connection.exec_driver_sql("UPDATE job SET spec = '[]' WHERE id = 'job_1'")
    page = UnitTransaction(market.connection).queue_after("", 9)
    assert ([one.id for one in page.rows], list(page.broken)) == (["job_2"], ["job_1"])
    market.connection.exec_driver_sql("UPDATE host SET facts = '{}' WHERE id = 'host_1'")
    hosts = market.hosts_after("", 9)
    assert (hosts.rows, list(hosts.broken)) == ([], ["host_1"])
