"""What is committed comes into the figures, once, and under no name of a stranger's."""

from contextlib import nullcontext
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from coordinator.api.metrics import Metrics
from coordinator.api.tally import Tally
from coordinator.domain.host import HostState
from coordinator.domain.states import AttemptState, Cause, EndReason, JobState
from coordinator.store.ports import News
from ledger.entries import capture, deposit
from runtime.ids import new_uuid
from tests.support.running_coordinator import MovedClock
from tests.support.values import attempt, job, meter

NOTHING = News(jobs=(), attempts=(), hosts=frozenset(), reliability_ppm={})
# Each holds words of ours alone: methods, codes, states, causes, kinds.
OUR_LABELS = {
    "method",
    "code",
    "state",
    "cause",
    "reason",
    "kind",
    "certificate",
    "version",
    "database",
    "le",
}


def told(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name.removeprefix("usance_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.page())
        for sample in family.samples
    }


def test_a_jobs_life_is_counted_as_it_goes():
    metrics, clock = Metrics(), MovedClock()
    tally = Tally(metrics, clock)
    queued = job(queued_ms=clock.wall_ms())
    starting, running = replace(queued, state=JobState.STARTING), replace(queued, state=JobState.RUNNING)
    over = replace(queued, state=JobState.SUCCEEDED, cause=Cause.BUYER)
    tally.committed(replace(NOTHING, jobs=[(None, queued)]))
    clock.advance(3_000)
    tally.committed(replace(NOTHING, jobs=[(queued, starting), (queued, queued)]))
    clock.advance(4_000)
    tally.committed(replace(NOTHING, jobs=[(starting, running)]))
    tally.committed(replace(NOTHING, jobs=[(running, replace(running, charged_micro=1))]))
    tally.committed(replace(NOTHING, jobs=[(running, over)]))
    figures = told(metrics)
    assert figures["jobs_submitted_total", ()] == 1
    assert figures["job_queue_seconds_sum", ()] == 3
    assert figures["job_start_seconds_sum", ()] == 7
    assert figures["job_start_seconds_bucket", (("le", "15.0"),)] == 1
    assert figures["job_start_seconds_bucket", (("le", "5.0"),)] == 0
    ended = {key[1]: value for key, value in figures.items() if key[0] == "jobs_ended_total" and value}
    assert ended == {(("cause", "buyer"), ("state", "succeeded")): 1}


def test_a_job_that_gets_its_host_at_once_has_not_waited():
    metrics, clock = Metrics(), MovedClock()
    at_once = job(queued_ms=clock.wall_ms(), state=JobState.STARTING)
    Tally(metrics, clock).committed(replace(NOTHING, jobs=[(None, at_once)]))
    figures = told(metrics)
    assert figures["jobs_submitted_total", ()] == 1
    assert figures["job_queue_seconds_count", ()] == 1


def test_time_is_billed_and_unbilled_by_gpu():
    metrics = Metrics()
    tally = Tally(metrics, MovedClock())
    two = attempt(gpus=attempt().gpus * 2, state=AttemptState.RUNNING, meter=meter(billed_ms=1_000))
    later = replace(two, meter=meter(billed_ms=5_000, usage_end_ms=6_000), run_ms_reported=6_500)
    ended = replace(later, state=AttemptState.ENDED, end_reason=EndReason.HOST_LOST, cause=Cause.HOST)
    tally.committed(replace(NOTHING, attempts=[(two, later)]))
    tally.committed(replace(NOTHING, attempts=[(later, ended)]))
    # What is received of it after its end changes nothing.
    tally.committed(replace(NOTHING, attempts=[(ended, replace(ended, log_offset=9))]))
    figures = told(metrics)
    assert figures["gpu_billed_seconds_total", ()] == 8
    assert figures["gpu_unbilled_seconds_total", ()] == 3
    assert figures["attempts_ended_total", (("reason", "host_lost"),)] == 1


def test_credits_and_links_are_counted_by_kind():
    metrics = Metrics()
    tally = Tally(metrics, MovedClock())
    paid = deposit(transfer_id=new_uuid(), account_id="a", amount_micro=2_500_000, event_ms=1)
    charged = capture(
        transfer_id=new_uuid(), job_id="j", seller_id="s", amount_micro=100_000, fee_micro=5_000, event_ms=1
    )
    tally.committed(replace(NOTHING, transfers=[paid, charged, charged], links=[HostState.LOST]))
    figures = told(metrics)
    assert figures["credits_moved_total", (("kind", "deposit"),)] == 2.5
    assert figures["credits_moved_total", (("kind", "capture"),)] == 0.2
    assert figures["host_link_changes_total", (("state", "lost"),)] == 1
    # Known before anything happened, so that the first is a rise.
    assert figures["host_link_changes_total", (("state", "suspect"),)] == 0
    assert figures["jobs_ended_total", (("cause", "host"), ("state", "failed"))] == 0


def test_labels_hold_words_of_ours_alone():
    labels = {
        label
        for collector in Metrics().registry._collector_to_names
        for label in getattr(collector, "_labelnames", ())
    }
    assert labels <= OUR_LABELS


def test_the_watch_takes_the_time_of_transactions():
    metrics = Metrics()
    with Tally(metrics, MovedClock()).timed("write"), nullcontext():
        pass
    labels = (("kind", "write"),)
    assert told(metrics)["database_transaction_duration_seconds_count", labels] == 1
