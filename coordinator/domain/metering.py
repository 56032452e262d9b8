"""From what a host claims to what may be charged.

Two things bound every charge: what the agent recorded, and what the coordinator witnessed. Witnessed time
is the sum of the gaps between moments at which the coordinator itself saw this epoch's container alive (the
same container, on the same boot of its host), on its own clock. A gap longer than the reconnect window
counts for nothing, and nothing counts that lies after the stop was asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from coordinator.domain.pricing import Charge, between, due
from coordinator.domain.values import changed
from runtime.evidence import GpuUse, UsageRecord, chain_start, is_genuine

RECORD_MS_MAX = 60_000
# Two honest clocks drift apart: by how much a run may seem longer to its host than to us.
DRIFT_MS, DRIFT_PPM = 1_000, 1_000
INT64_MAX = 2**63 - 1
# No GPU draws more, nor does a sample of its counter reach further back.
GPU_WATTS_MAX, SAMPLE_MS_MAX = 10_000, 60_000


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """A moment on the coordinator's own clocks."""

    boot_id: str
    boot_ms: int
    wall_ms: int


@dataclass(frozen=True, kw_only=True)
class Meter:
    """All that is known of an attempt's run."""

    attempt_id: str
    epoch: int
    hour_price_micro: int
    fee_ppm: int
    run_ms_affordable: int
    run_ms_max: int
    gpu_uuids: frozenset[str]
    # When the host was given it: no run is older.
    assigned: Stamp
    # Of its GPU that has the most; 0 where that is not known.
    vram_bytes_max: int = 0
    container_id: str = ""
    host_boot_id: str = ""
    sighted: Stamp | None = None
    stop_asked: Stamp | None = None
    witnessed_ms: int = 0
    usage_number: int = 0
    usage_end_ms: int = 0
    usage_digest: bytes = b""
    billed_ms: int = 0


class Lie(StrEnum):
    """What no honest agent says. Each is refused, and told to the operator."""

    OTHER_CONTAINER = "another container than the one that was started"
    BROKEN_CHAIN = "a usage record that does not follow the one before it"
    FALSE_DIGEST = "a usage record whose digest is not its own"
    FALSE_SPAN = "a usage record that does not begin where the last ended, or is too long"
    FOREIGN_GPU = "use of a GPU that the attempt does not have"
    FALSE_FIGURE = "a figure that can't be"
    FALSE_TIME = "more run time than has passed since the host was given the job"


class Line(NamedTuple):
    """A usage record accepted, and what it cost."""

    record: UsageRecord
    witnessed_ms: int
    billed_through_ms: int
    charge: Charge


def elapsed_ms(earlier: Stamp, later: Stamp) -> int:
    """Time between two moments, never negative.

    Within one boot of the coordinator's machine the wall clock has no say. Over a reboot nothing else is
    left; what a jump could add is bounded by the reconnect window, and by what the agent recorded.
    """
    if earlier.boot_id == later.boot_id:
        return max(0, later.boot_ms - earlier.boot_ms)
    return max(0, later.wall_ms - earlier.wall_ms)


def passed_ms(since: Stamp, started: Stamp, now: Stamp) -> int:
    """How long we have waited: only while we were there counts, on a clock that does not jump.

    `started` is when this coordinator began. What began before its machine's reboot is waited for anew.
    """
    here_ms = elapsed_ms(started, now)
    return min(elapsed_ms(since, now), here_ms) if since.boot_id == now.boot_id else here_ms


def sight(
    meter: Meter, container_id: str, host_boot_id: str, run_ms_more: int, now: Stamp, window_ms: int
) -> Meter | Lie:
    """The host shows the container alive, or just ended, and says how much longer it has run by now."""
    if meter.sighted is None:
        return changed(meter, container_id=container_id, host_boot_id=host_boot_id, sighted=now)
    if container_id != meter.container_id:
        return Lie.OTHER_CONTAINER
    if host_boot_id != meter.host_boot_id:
        # The machine was restarted, and what ran on it with it: no lie, but nothing to witness.
        return meter
    if now.boot_id == meter.sighted.boot_id and now.boot_ms < meter.sighted.boot_ms:
        # Written down after what came later: the time between the two is witnessed already.
        return meter
    gap_ms = elapsed_ms(meter.sighted, now)
    if gap_ms > window_ms:
        return changed(meter, sighted=now)
    if meter.sighted.boot_id != now.boot_id:
        # Our wall clock may have jumped while we were away: what it adds beyond the run would pay for later.
        gap_ms = min(gap_ms, max(0, run_ms_more))
    if meter.stop_asked is not None:
        gap_ms = _before_stop_ms(meter.sighted, meter.stop_asked, now, gap_ms)
    return changed(meter, sighted=now, witnessed_ms=meter.witnessed_ms + gap_ms)


def _before_stop_ms(sighted: Stamp, stop_asked: Stamp, now: Stamp, gap_ms: int) -> int:
    """How much of the time between two sightings lies before the stop was asked for.

    Only moments of one boot are compared: by the wall clock what came later may have come first.
    """
    if stop_asked.boot_id == now.boot_id:
        return max(0, gap_ms - elapsed_ms(stop_asked, now))
    if stop_asked.boot_id == sighted.boot_id:
        return min(gap_ms, elapsed_ms(sighted, stop_asked))
    # The stop was before our last reboot but one, or before the last sighting: nobody pays for later time.
    return 0


def sight_by_usage(meter: Meter, host_boot_id: str, now: Stamp, window_ms: int) -> Meter:
    """Usage that goes on where the last left off shows the run as well as a beat does.

    An agent sends the last record of a run as soon as it has it, before the beat that says that it has ended:
    without this the seller would lose what lies between that and the beat before.
    """
    if meter.sighted is None:
        return meter
    if meter.sighted.boot_id != now.boot_id:
        # It does not say how long the run has lasted; the beat that comes with it does.
        return meter
    seen = sight(meter, meter.container_id, host_boot_id, 0, now, window_ms)
    assert isinstance(seen, Meter), "it is the same container by definition"
    return seen


def believe(meter: Meter, run_ms: int, now: Stamp) -> int | Lie:
    """How long it can have run, of what the host says: never longer than it has had it."""
    if run_ms > _believable_ms(meter, now):
        return Lie.FALSE_TIME
    return run_ms if now.boot_id != meter.assigned.boot_id else min(run_ms, elapsed_ms(meter.assigned, now))


def _believable_ms(meter: Meter, now: Stamp) -> int:
    """No honest host says that it has run for longer."""
    if now.boot_id != meter.assigned.boot_id:
        # Over a reboot of ours we have but the wall clock, and hold nobody to its word: were it set back, an
        # honest run would get no more paid time. What is billed is bounded by what was witnessed anyway.
        return INT64_MAX
    passed_ms = elapsed_ms(meter.assigned, now)
    return passed_ms + drift_ms(passed_ms)


def drift_ms(passed_ms: int) -> int:
    return DRIFT_MS + passed_ms * DRIFT_PPM // 1_000_000


def accept(
    meter: Meter, records: Sequence[UsageRecord], now: Stamp
) -> tuple[Meter, Sequence[Line], Lie | None]:
    """Takes in the records that come next, one after the other, until one that can't be true.

    The caller has passed over those already known.
    """
    lines, lie = list[Line](), None
    number, start_ms, billed_ms = meter.usage_number, meter.usage_end_ms, meter.billed_ms
    digest = meter.usage_digest or chain_start(meter.attempt_id, meter.epoch)
    payable_ms = min(meter.witnessed_ms, meter.run_ms_affordable, meter.run_ms_max)
    before = due(meter.hour_price_micro, meter.fee_ppm, billed_ms)
    end_ms_max = _believable_ms(meter, now)
    for record in records:
        if record.number != number + 1 or record.previous_digest != digest:
            lie = Lie.BROKEN_CHAIN
        else:
            lie = _lie(meter, record, start_ms, end_ms_max)
        if lie is not None:
            break
        number, start_ms, digest = record.number, record.end_ms, record.digest
        billed_ms = max(billed_ms, min(start_ms, payable_ms))
        after = due(meter.hour_price_micro, meter.fee_ppm, billed_ms)
        lines.append(Line(record, meter.witnessed_ms, billed_ms, between(before, after)))
        before = after
    if not lines:
        return meter, lines, lie
    after_all = changed(
        meter, usage_number=number, usage_end_ms=start_ms, usage_digest=digest, billed_ms=billed_ms
    )
    return after_all, lines, lie


def _lie(meter: Meter, record: UsageRecord, start_ms: int, end_ms_max: int) -> Lie | None:
    span_ms = record.end_ms - record.start_ms
    if not is_genuine(record):
        return Lie.FALSE_DIGEST
    if record.start_ms != start_ms or not 0 < span_ms <= RECORD_MS_MAX:
        return Lie.FALSE_SPAN
    uuids = [use.gpu_uuid for use in record.gpus]
    if not meter.gpu_uuids.issuperset(uuids):
        return Lie.FOREIGN_GPU
    if len(set(uuids)) != len(uuids):
        return Lie.FALSE_FIGURE
    for use in record.gpus:
        if not _is_possible(meter, use, span_ms):
            return Lie.FALSE_FIGURE
    return Lie.FALSE_TIME if record.end_ms > end_ms_max else None


def _is_possible(meter: Meter, use: GpuUse, span_ms: int) -> bool:
    energy_mj_max = GPU_WATTS_MAX * (span_ms + SAMPLE_MS_MAX)
    # Drivers count what they keep for themselves in one figure and not in the other.
    memory_bytes_max = meter.vram_bytes_max * 9 // 8 or use.memory_used_bytes or 0
    return (
        0 <= (use.utilization_percent or 0) <= 100
        and 0 <= (use.memory_used_bytes or 0) <= memory_bytes_max
        and 0 <= (use.energy_mj or 0) <= energy_mj_max
    )


def run_ms_at_least(meter: Meter, run_ms_reported: int, window_ms: int) -> int:
    """How long it has run: as its host says, or as we have seen, less what an honest host may be wrong.

    A host that says that it runs and that no time has passed reaches the limits all the same. But an agent
    that comes back may not know yet that the run has ended while nobody could see it, and how long it was.
    """
    return max(run_ms_reported, meter.witnessed_ms - drift_ms(meter.witnessed_ms) - window_ms)


def paid_through_ms(meter: Meter, run_ms_reported: int, window_ms: int) -> int:
    """How far the agent may let the command run without hearing from us again.

    It is never beyond what the money buys, and beyond the last sign of life only by the reconnect window:
    after that the host is lost, and what it ran would not be paid.
    """
    return min(run_ms_reported + window_ms, meter.run_ms_affordable, meter.run_ms_max)
