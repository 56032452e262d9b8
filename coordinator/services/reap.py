"""One pass over what has fallen silent."""

from dataclasses import replace

from coordinator.domain.host import HostState
from coordinator.domain.job import Attempt, LogState, OnHostLoss
from coordinator.domain.metering import Stamp, passed_ms
from coordinator.domain.states import AttemptState, EndReason
from coordinator.services.attempts import ask_stop, end_attempt
from coordinator.services.hosts import change_link, existing
from coordinator.store.ports import Transaction

BEATS_BEFORE_SUSPECT = 3
# The slowest uplink for which the output of an ended attempt is awaited, and the longest.
OUTPUT_BYTES_A_SECOND_MIN = 16_384
OUTPUT_MS_MAX = 86_400_000


def pass_once(tx: Transaction, started: Stamp, beat_interval_ms: int, window_ms: int, now: Stamp) -> None:
    """Silent hosts become SUSPECT, then LOST, and a lost host's attempts end.

    `started` is when this coordinator began to listen: before it nobody could have been heard, so its own
    absence is not counted as the host's.
    """
    _look_at_hosts(tx, started, beat_interval_ms, window_ms, now)
    _look_at_attempts(tx, started, window_ms, now)


def _look_at_hosts(
    tx: Transaction, started: Stamp, beat_interval_ms: int, window_ms: int, now: Stamp
) -> None:
    for host_id, link, seen in tx.hosts_seen():
        silent_ms = passed_ms(seen, started, now)
        if silent_ms > window_ms:
            _lose(tx, host_id, now)
        elif silent_ms > BEATS_BEFORE_SUSPECT * beat_interval_ms and link is HostState.ONLINE:
            _suspect(tx, host_id, now)
    for host, since_ms in tx.draining():
        if now.wall_ms - since_ms >= host.terms.reclaim_notice_ms:
            _reclaim(tx, host.id, now)


def _look_at_attempts(tx: Transaction, started: Stamp, window_ms: int, now: Stamp) -> None:
    """What a host owes of an attempt is not waited for for ever."""
    for attempt in tx.attempts_reported_ended():
        end = attempt.reported_end
        if end is not None and passed_ms(end.at, started, now) > window_ms:
            # The host told the end, but never the last of its usage: that stays unbilled.
            end_attempt(tx, attempt, end.reason, end.exit_code, end.detail, now)
    for attempt in tx.attempts_untaken():
        if passed_ms(attempt.meter.assigned, started, now) > window_ms:
            end_attempt(tx, attempt, EndReason.START_FAILED, None, "it never took the job up", now)
    for attempt in tx.attempts_stopping():
        _give_up_stopping(tx, attempt, started, window_ms, now)
    for attempt in tx.attempts_awaiting_output():
        _give_up_output(tx, attempt, started, window_ms, now)


def _give_up_stopping(tx: Transaction, attempt: Attempt, started: Stamp, window_ms: int, now: Stamp) -> None:
    """A host that is there but never says that it has stopped does not keep the buyer's money from them.

    It may have heard of it a window late, then comes the grace period, then its answer may be as late.
    """
    job, asked = tx.job(attempt.job_id), attempt.meter.stop_asked
    assert job is not None, "an attempt has a job"
    assert asked is not None, "STOPPING begins with it"
    waited_ms = passed_ms(asked, started, now)
    if waited_ms > 2 * window_ms + job.spec.stop_grace_ms:
        end_attempt(tx, attempt, EndReason.HOST_LOST, None, "the host never said that it did", now)


def _give_up_output(tx: Transaction, attempt: Attempt, started: Stamp, window_ms: int, now: Stamp) -> None:
    """Nor does one that promises more output than it sends keep whoever reads it waiting for ever."""
    end, totals = attempt.reported_end, attempt.log_totals
    since = attempt.meter.assigned if end is None else end.at
    promised_bytes = 0 if totals is None else totals.stdout_bytes + totals.stderr_bytes
    allowed_ms = min(window_ms + promised_bytes * 1_000 // OUTPUT_BYTES_A_SECOND_MIN, OUTPUT_MS_MAX)
    if passed_ms(since, started, now) > allowed_ms:
        tx.save_attempt(attempt, replace(attempt, log_state=LogState.INCOMPLETE))
        tx.wake(attempt.job_id, attempt.host_id)


def _lose(tx: Transaction, host_id: str, now: Stamp) -> None:
    reason = "has been silent for longer than the reconnect window"
    if not change_link(tx, existing(tx, host_id), HostState.LOST, reason, now.wall_ms):
        return
    tx.wake(host_id)
    for attempt in tx.attempts_on_host(host_id):
        if attempt.state is not AttemptState.ENDED:
            end_attempt(tx, attempt, EndReason.HOST_LOST, None, "", now)
        else:
            # It had ended well, but the rest of its output went with the host.
            tx.save_attempt(attempt, replace(attempt, log_state=LogState.INCOMPLETE))
            tx.wake(attempt.job_id)


def _suspect(tx: Transaction, host_id: str, now: Stamp) -> None:
    """Some buyers would rather not wait to see."""
    if not change_link(tx, existing(tx, host_id), HostState.SUSPECT, "has missed some beats", now.wall_ms):
        return
    live = [a for a in tx.attempts_on_host(host_id) if a.state is not AttemptState.ENDED]
    jobs = tx.jobs([attempt.job_id for attempt in live])
    for attempt in live:
        job = jobs[attempt.job_id]
        if job.spec.on_host_loss is OnHostLoss.REPLACE and job.retries_used < job.spec.retries_max:
            end_attempt(tx, attempt, EndReason.REPLACED, None, "", now)


def _reclaim(tx: Transaction, host_id: str, now: Stamp) -> None:
    live = [a for a in tx.attempts_on_host(host_id) if a.state is not AttemptState.ENDED]
    jobs = tx.jobs([attempt.job_id for attempt in live])
    for attempt in live:
        ask_stop(tx, jobs[attempt.job_id], attempt, EndReason.RECLAIMED, now)
