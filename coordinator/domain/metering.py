"""From what a host claims to what may be charged.

Two things bound every charge: what the agent recorded, and what the coordinator witnessed. Witnessed time
is the sum of the gaps between moments at which the coordinator itself saw this epoch's container alive (the
same container, on the same boot of its host), on its own clock. A gap longer than the reconnect window
counts for nothing, and nothing counts that lies after the stop was asked for.
"""

from dataclasses import dataclass
from enum import StrEnum

from coordinator.domain.pricing import Charge, charge_between
from coordinator.domain.values import changed
from runtime.evidence import GpuUse, UsageRecord, chain_start, is_genuine

RECORD_MS_MAX = 60_000
# Two honest clocks drift apart: by how much a run may seem longer to its host than to us.
DRIFT_MS, DRIFT_PPM = 1_000, 1_000
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


@dataclass(frozen=True, kw_only=True)
class Line:
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
    if now.boot_id != meter.assigned.boot_id:
        # Over a reboot of ours we have but the wall clock, and hold nobody to its word: were it set back, an
        # honest run would get no more paid time. What is billed is bounded by what was witnessed anyway.
        return run_ms
    passed_ms = elapsed_ms(meter.assigned, now)
    if run_ms > passed_ms + drift_ms(passed_ms):
        return Lie.FALSE_TIME
    return min(run_ms, passed_ms)


def drift_ms(passed_ms: int) -> int:
    return DRIFT_MS + passed_ms * DRIFT_PPM // 1_000_000


def accept(meter: Meter, record: UsageRecord, now: Stamp) -> tuple[Meter, Line] | Lie:
    """Takes in the record that comes next (the caller has passed over those already known)."""
    lie = _lie(meter, record, now)
    if lie is not None:
        return lie
    billed_ms = max(
        meter.billed_ms,
        min(record.end_ms, meter.witnessed_ms, meter.run_ms_affordable, meter.run_ms_max),
    )
    charge = charge_between(meter.hour_price_micro, meter.fee_ppm, meter.billed_ms, billed_ms)
    after = changed(
        meter,
        usage_number=record.number,
        usage_end_ms=record.end_ms,
        usage_digest=record.digest,
        billed_ms=billed_ms,
    )
    line = Line(record=record, witnessed_ms=meter.witnessed_ms, billed_through_ms=billed_ms, charge=charge)
    return after, line


def _lie(meter: Meter, record: UsageRecord, now: Stamp) -> Lie | None:
    previous = meter.usage_digest or chain_start(meter.attempt_id, meter.epoch)
    if record.number != meter.usage_number + 1 or record.previous_digest != previous:
        return Lie.BROKEN_CHAIN
    if not is_genuine(record):
        return Lie.FALSE_DIGEST
    if record.start_ms != meter.usage_end_ms or not 0 < record.end_ms - record.start_ms <= RECORD_MS_MAX:
        return Lie.FALSE_SPAN
    if not meter.gpu_uuids.issuperset(use.gpu_uuid for use in record.gpus):
        return Lie.FOREIGN_GPU
    if len({use.gpu_uuid for use in record.gpus}) != len(record.gpus):
        return Lie.FALSE_FIGURE
    if not all(_is_possible(meter, use, record.end_ms - record.start_ms) for use in record.gpus):
        return Lie.FALSE_FIGURE
    return Lie.FALSE_TIME if believe(meter, record.end_ms, now) is Lie.FALSE_TIME else None


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
