"""What many hosts say at the same moment, taken in with a few statements for all of them.

Only what is plain goes this way: jobs that just run on, usage that just follows. Anything else is taken in
by itself, by `synchronize`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coordinator.domain.claim import GpuOwner
from coordinator.domain.host import Host, HostFacts, HostState, Terms
from coordinator.domain.job import Attempt
from coordinator.domain.metering import Lie, Stamp, run_ms_at_least
from coordinator.domain.states import AttemptState
from coordinator.domain.values import changed
from coordinator.services.attempts import LostRaceError
from coordinator.services.settle import Taken, charge, finish_if_settled, just_follows, take_in
from coordinator.services.strikes import Claim, judge
from coordinator.services.synchronize import Ack, Report, ack_of, beat, heard, hello, seen_running, usage
from coordinator.store.ports import Transaction
from runtime.evidence import UsageRecord

# A tenth of what was free on a disk is news; less is not.
DISK_CHANGE_PARTS = 10


@dataclass(frozen=True, kw_only=True)
class Hello:
    """What a host is and sells."""

    host_id: str
    facts: HostFacts
    terms: Terms
    now: Stamp


@dataclass(frozen=True, kw_only=True)
class Beat:
    """All that a host holds."""

    host_id: str
    boot_id: str
    reports: Sequence[Report]
    window_ms: int
    now: Stamp


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Records of one attempt."""

    host_id: str
    boot_id: str
    attempt_id: str
    epoch: int
    records: Sequence[UsageRecord]
    window_ms: int
    now: Stamp


def hellos(tx: Transaction, given: Sequence[Hello]) -> list[None]:
    """Many hosts that come back at once. Most say what they said before: these are only noted as seen."""
    times = Counter(item.host_id for item in given)
    hosts = tx.hosts(sorted(times))
    owners = tx.gpu_owners(sorted({gpu.uuid for item in given for gpu in item.facts.gpus}))
    for item in given:
        host = hosts.get(item.host_id)
        if host is not None and times[item.host_id] == 1 and says_nothing_new(host, item, owners):
            tx.save_seen(item.host_id, item.now)
        else:
            hello(tx, item.host_id, item.facts, item.terms, item.now)
    return [None for _ in given]


def says_nothing_new(host: Host, said: Hello, owners: Mapping[str, GpuOwner]) -> bool:
    """Of a host in good standing, whose GPUs are its own. What is free on a disk is another every time."""
    before, now = host.facts.disk_free_bytes, said.facts.disk_free_bytes
    return (
        host.link is HostState.ONLINE
        and not host.revoked_ms
        and host.terms == said.terms
        and host.facts == changed(said.facts, disk_free_bytes=before)
        and abs(now - before) * DISK_CHANGE_PARTS <= max(now, before)
        and all(
            (owner := owners.get(gpu.uuid)) is not None and owner.host_id == host.id
            for gpu in said.facts.gpus
        )
    )


def beats(tx: Transaction, given: Sequence[Beat]) -> list[Sequence[Attempt] | None]:
    """Many hosts' beats. Answers what each should hold, where nothing happened there but that time passed."""
    latest = {item.host_id: item for item in given}
    heard(tx, {host_id: item.now for host_id, item in latest.items()})
    held = tx.attempts_on_hosts(sorted(latest))
    after = {host_id: _steady(held.get(host_id, ()), item) for host_id, item in latest.items()}
    pairs = [
        (old, new)
        for host_id, attempts in after.items()
        for old, new in zip(held.get(host_id, ()), attempts or (), strict=attempts is not None)
        if old != new
    ]
    if not tx.save_meters(pairs):
        raise LostRaceError
    eventful = [host_id for host_id, steady in after.items() if steady is None]
    _look_up(tx, [attempt for host_id in eventful for attempt in held.get(host_id, ())])
    # What they name and should not hold will be judged.
    tx.attempts(sorted({report.attempt_id for host_id in eventful for report in latest[host_id].reports}))
    answers: list[Sequence[Attempt] | None] = []
    for item in given:
        steady = after[item.host_id] if item is latest[item.host_id] else None
        if steady is None:
            beat(tx, item.host_id, item.boot_id, item.reports, item.window_ms, item.now)
            tx.wake(item.host_id)
        answers.append(steady)
    return answers


def _look_up(tx: Transaction, attempts: Sequence[Attempt]) -> None:
    """What those who look at them one by one will ask for, asked for at once: the transaction keeps it."""
    if attempts:
        tx.jobs(sorted({attempt.job_id for attempt in attempts}))
        tx.hosts(sorted({attempt.host_id for attempt in attempts}))


def _steady(attempts: Sequence[Attempt], item: Beat) -> list[Attempt] | None:
    """The host's attempts a while later, if all of them just went on; None: look at them one by one."""
    reports = {report.attempt_id: report for report in item.reports}
    if len(item.reports) != len(attempts) or len(reports) != len(attempts):
        return None
    after = []
    for attempt in attempts:
        report = reports.get(attempt.id)
        if report is None or not _goes_on(attempt, report):
            return None
        seen = seen_running(attempt, report, item.boot_id, item.window_ms, item.now)
        if isinstance(seen, Lie) or _nears_end(seen, item.window_ms):
            return None
        after.append(seen)
    return after


def _goes_on(attempt: Attempt, report: Report) -> bool:
    return (
        (attempt.state, report.state) == (AttemptState.RUNNING, AttemptState.RUNNING)
        and attempt.epoch == report.epoch
        and report.detail in {"", attempt.detail}
        and attempt.reported_end is None
        and not attempt.lie
        and attempt.meter.sighted is not None
    )


def _nears_end(attempt: Attempt, window_ms: int) -> bool:
    """Four fifths of what time or money allow have run: limits and warnings are near."""
    meter = attempt.meter
    run_ms = run_ms_at_least(meter, attempt.run_ms_reported, window_ms)
    return 5 * run_ms >= 4 * min(meter.run_ms_max, meter.run_ms_affordable)


def usages(tx: Transaction, messages: Sequence[Sequence[Usage]]) -> list[Sequence[Ack]]:
    """The usage of many hosts, in messages of one or of several attempts each."""
    acks = iter(_usages(tx, [item for message in messages for item in message]))
    return [[ack for _ in message if (ack := next(acks)) is not None] for message in messages]


def _usages(tx: Transaction, given: Sequence[Usage]) -> list[Ack | None]:
    """What is not plain is taken in by itself."""
    if not given:
        return []
    attempts = tx.attempts(sorted({item.attempt_id for item in given}))
    now = max((item.now for item in given), key=lambda stamp: stamp.wall_ms)
    plain: dict[int, Taken] = {}
    # By host: claims that are not its to make.
    strange: dict[str, list[Claim]] = {}
    foreign, jobs_named = set[int](), set[str]()
    for index, item in enumerate(given):
        attempt = attempts.get(item.attempt_id)
        if attempt is None or (attempt.host_id, attempt.epoch) != (item.host_id, item.epoch):
            claim = Claim(attempt_id=item.attempt_id, epoch=item.epoch)
            strange.setdefault(item.host_id, []).append(claim)
            foreign.add(index)
            continue
        taken = take_in(attempt, item.records, item.boot_id, item.window_ms, item.now)
        alone = attempt.job_id in jobs_named or taken.lie is not None
        if taken.lines and not alone and just_follows(attempt, item.records):
            jobs_named.add(attempt.job_id)
            plain[index] = taken
    if plain:
        many = list(plain.values())
        if not tx.save_meters([(taken.before, taken.after) for taken in many]):
            raise LostRaceError
        charge(tx, many, now)
    _look_up(tx, [attempt for attempt in attempts.values() if attempt.reported_end is not None])
    # All of a host at once: such a message must not cost a question for each.
    for host_id, claims in strange.items():
        judge(tx, host_id, claims, now.wall_ms)
    return [
        None if index in foreign else _acknowledged(tx, item, plain.get(index))
        for index, item in enumerate(given)
    ]


def _acknowledged(tx: Transaction, item: Usage, taken: Taken | None) -> Ack | None:
    if taken is None:
        return usage(
            tx,
            item.host_id,
            item.boot_id,
            item.attempt_id,
            item.epoch,
            item.records,
            item.window_ms,
            item.now,
        )
    finish_if_settled(tx, taken.after, item.now)
    return ack_of(taken.after)
