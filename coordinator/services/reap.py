"""What has fallen silent: found by reading, then acted on one by one, so that none waits for another."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from coordinator.domain.host import HostState
from coordinator.domain.job import Attempt, LogState, OnHostLoss
from coordinator.domain.metering import Stamp, passed_ms
from coordinator.domain.states import AttemptState, EndReason
from coordinator.services.attempts import ask_stop, end_attempt
from coordinator.services.hosts import change_link, existing, revoked_topic
from coordinator.store.ports import Transaction
from coordinator.store.ports_hosts import Seen

BEATS_BEFORE_SUSPECT = 3
# The slowest uplink for which the output of an ended attempt is awaited, and the longest.
OUTPUT_BYTES_A_SECOND_MIN = 16_384
OUTPUT_MS_MAX = 86_400_000
# About 60 ms of a reader's time, each second.
ATTEMPTS_A_LOOK, HOSTS_A_LOOK = 1_000, 2_000


class Kind(StrEnum):
    HOST = "host"
    # One that its seller wants back.
    RECLAIM = "reclaim"
    ATTEMPT = "attempt"


@dataclass(frozen=True, kw_only=True)
class Due:
    """Something that has been silent for so long that it should be looked at."""

    kind: Kind
    name: str


@dataclass(frozen=True, kw_only=True)
class Rules:
    """`started` is when this coordinator began to listen: before it nobody could have been heard, so its own
    absence is not counted as the host's."""

    started: Stamp
    beat_interval_ms: int
    window_ms: int


@dataclass(frozen=True, kw_only=True)
class Place:
    """Up to where was looked; from the beginning when there is no more."""

    host: str = ""
    attempt: str = ""


@dataclass(frozen=True, kw_only=True)
class Found:
    """`broken` are attempts and hosts of which nothing can be made, and why; `last` is where to go on."""

    due: list[Due]
    broken: Mapping[str, str]
    last: Place


def find(tx: Transaction, rules: Rules, after: Place, heard: Mapping[str, Stamp], now: Stamp) -> Found:
    """Silent hosts become SUSPECT, then LOST, and a lost host's attempts end. What a host owes of an attempt
    is not waited for for ever. Of many a part is looked at, then the next.

    `heard` are hosts that this coordinator has heard, whether or not it was written down.
    """
    seen_hosts = tx.hosts_seen(after.host, HOSTS_A_LOOK)
    hosts = [
        Due(kind=Kind.HOST, name=seen.host_id)
        for seen in _perhaps_silent(seen_hosts, rules, heard, now)
        if seen.is_revoked or _link_after(seen, rules, heard, now) is not seen.link
    ]
    wanted_back = tx.draining([seen.host_id for seen in seen_hosts if seen.is_wanted_back])
    reclaims = [
        Due(kind=Kind.RECLAIM, name=host.id)
        for host, since_ms in wanted_back.rows
        if now.wall_ms - since_ms >= host.terms.reclaim_notice_ms
    ]
    page = tx.attempts_awaited(after.attempt, ATTEMPTS_A_LOOK)
    attempts = [
        Due(kind=Kind.ATTEMPT, name=attempt.id)
        for attempt in page.rows
        if _is_overdue(attempt, 0, rules, now)
    ]
    last = Place(host=seen_hosts[-1].host_id if len(seen_hosts) == HOSTS_A_LOOK else "", attempt=page.last)
    return Found(due=[*hosts, *reclaims, *attempts], broken={**wanted_back.broken, **page.broken}, last=last)


def act(tx: Transaction, due: Due, rules: Rules, heard: Mapping[str, Stamp], now: Stamp) -> None:
    """If it is still so: something may have been heard meanwhile."""
    match due.kind:
        case Kind.HOST:
            _look_at_host(tx, due.name, rules, heard, now)
        case Kind.RECLAIM:
            _reclaim(tx, due.name, now)
        case Kind.ATTEMPT:
            attempt = tx.attempt(due.name)
            job = None if attempt is None else tx.job(attempt.job_id)
            grace_ms = 0 if job is None else job.spec.stop_grace_ms
            if attempt is not None and _is_overdue(attempt, grace_ms, rules, now):
                _give_up(tx, attempt, now)
        case _:
            assert_never(due.kind)


def _perhaps_silent(
    seen_hosts: Iterable[Seen], rules: Rules, heard: Mapping[str, Stamp], now: Stamp
) -> Iterator[Seen]:
    """Without those that were heard a moment ago, which are nearly all: the whole rule costs ten times as
    much as this."""
    since_ms = now.boot_ms - min(BEATS_BEFORE_SUSPECT * rules.beat_interval_ms, rules.window_ms)
    for seen in seen_hosts:
        said = heard.get(seen.host_id)
        is_heard = (seen.boot_id == now.boot_id and seen.boot_ms >= since_ms) or (
            said is not None and said.boot_id == now.boot_id and said.boot_ms >= since_ms
        )
        if seen.is_revoked or not is_heard:
            yield seen


def _link_after(seen: Seen, rules: Rules, heard: Mapping[str, Stamp], now: Stamp) -> HostState:
    silent_ms = passed_ms(_latest(seen.at, heard.get(seen.host_id)), rules.started, now)
    if silent_ms > rules.window_ms:
        return HostState.LOST
    if silent_ms > BEATS_BEFORE_SUSPECT * rules.beat_interval_ms and seen.link is HostState.ONLINE:
        return HostState.SUSPECT
    return seen.link


def _latest(written: Stamp, heard: Stamp | None) -> Stamp:
    """What was heard was heard since this coordinator's start: of another boot is only what came before."""
    if heard is None or (written.boot_id == heard.boot_id and written.boot_ms > heard.boot_ms):
        return written
    return heard


def _look_at_host(
    tx: Transaction, host_id: str, rules: Rules, heard: Mapping[str, Stamp], now: Stamp
) -> None:
    seen = tx.host_seen(host_id)
    if seen is None:
        return
    if seen.is_revoked:
        # Who revokes by our RPC loses it at once; this was written into the database by hand.
        lose(tx, host_id, "revoked", now)
        tx.wake(revoked_topic(host_id))
        return
    after = _link_after(seen, rules, heard, now)
    if after is HostState.LOST:
        lose(tx, host_id, "has been silent for longer than the reconnect window", now)
    elif after is not seen.link:
        _suspect(tx, host_id, now)


def _is_overdue(attempt: Attempt, grace_ms: int, rules: Rules, now: Stamp) -> bool:
    """Something is owed of it, and was not heard for too long. `grace_ms` is its job's time to stop."""
    end, meter, window_ms = attempt.reported_end, attempt.meter, rules.window_ms
    since, allowed_ms = meter.assigned, window_ms
    if attempt.state is AttemptState.ENDED:
        if attempt.log_state is not LogState.OPEN:
            return False
        since, allowed_ms = meter.assigned if end is None else end.at, _output_ms(attempt, window_ms)
    elif end is not None:
        since = end.at
    elif attempt.state is AttemptState.STOPPING:
        # The host may have heard of it a window late, then comes the grace period, then its answer may be as
        # late. One that is there but never says that it has stopped does not keep the buyer's money.
        assert meter.stop_asked is not None, "STOPPING begins with it"
        since, allowed_ms = meter.stop_asked, 2 * window_ms + grace_ms
    elif attempt.state is not AttemptState.ASSIGNED:
        return False
    return passed_ms(since, rules.started, now) > allowed_ms


def _output_ms(attempt: Attempt, window_ms: int) -> int:
    """Who promises more output than they send don't keep whoever reads it waiting for ever."""
    totals = attempt.log_totals
    promised_bytes = 0 if totals is None else totals.stdout_bytes + totals.stderr_bytes
    return min(window_ms + promised_bytes * 1_000 // OUTPUT_BYTES_A_SECOND_MIN, OUTPUT_MS_MAX)


def _give_up(tx: Transaction, attempt: Attempt, now: Stamp) -> None:
    end = attempt.reported_end
    if attempt.state is AttemptState.ENDED:
        tx.save_attempt(attempt, replace(attempt, log_state=LogState.INCOMPLETE))
        tx.wake(attempt.job_id, attempt.host_id)
    elif end is not None:
        # The host told the end, but never the last of its usage: that stays unbilled.
        end_attempt(tx, attempt, end.reason, end.exit_code, end.detail, now)
    elif attempt.state is AttemptState.STOPPING:
        end_attempt(tx, attempt, EndReason.HOST_LOST, None, "the host never said that it did", now)
    else:
        end_attempt(tx, attempt, EndReason.START_FAILED, None, "it never took the job up", now)


def lose(tx: Transaction, host_id: str, reason: str, now: Stamp) -> None:
    """It is given up, and its attempts with it."""
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
