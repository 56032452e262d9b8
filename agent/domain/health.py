"""Is a GPU fit to be sold, and may a job go on with it? Decided from what it told, and from nothing else.

A `Chart` is what is known of one GPU. It changes only through the functions here, each of which takes the
time as an argument, on a clock that counts from the machine's boot.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from agent.domain.gpu import GpuFault, GpuReading, GpuSample, GpuVitals
from agent.domain.xid import Meaning, meaning, words

# How long after a job its GPU may take to give back memory and be rid of processes: drivers tear down late.
SETTLE_MS = 30_000
# The driver answers now and then only after seconds; longer is trouble.
SILENT_MS = 45_000
# More than what use varies by on a GPU on which nothing runs.
MEMORY_SLACK_BYTES = 256 << 20
# What a GPU on which nothing ever ran may use, where we have never seen it at rest.
MEMORY_AT_REST_BYTES_MAX = 1 << 30
# The driver's advice may come a little after the error that it is about.
ADVICE_MS = 90_000
_XIDS_MAX = 32
_PIDS_NAMED = 5
# The driver's advice: nothing; drain first. Everything else wants a reset now.
_NOTHING, _DRAIN = 0, (3, 4)
_DEADLY = {GpuFault.LOST, GpuFault.RESET_REQUIRED, GpuFault.GONE}


class Condition(StrEnum):
    """What a GPU is fit for."""

    # Everything.
    HEALTHY = "healthy"
    # What runs may go on; nothing new begins.
    DEGRADED = "degraded"
    # Nothing: what runs on it is over.
    LOST = "lost"


@dataclass(frozen=True, kw_only=True)
class GpuHealth:
    """A condition, and why; the reason is empty where all is well."""

    condition: Condition
    reason: str = ""


HEALTHY = GpuHealth(condition=Condition.HEALTHY)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is known of one GPU."""

    # When it was last asked in vain, and when it last answered.
    answered_ms: int
    fault: GpuFault | None = None
    sample: GpuSample | None = None
    processes: tuple[int, ...] = ()
    unsteady: bool = False
    vitals: GpuVitals | None = None
    # Errors that are held against it until a reset; when the last of them came, and its energy counter then.
    xids: tuple[int, ...] = ()
    xid_ms: int = 0
    xid_energy_mj: int | None = None
    # The least memory that it was seen to use while nobody computed on it; None before that was seen.
    memory_at_rest_bytes: int | None = None
    in_use: bool = False
    # When the last job left it; None where none did since we look.
    left_ms: int | None = None


def after_reading(chart: Chart, reading: GpuReading, now_ms: int) -> Chart:
    """What is known after an answer."""
    if reading.fault is not None:
        answered_ms = chart.answered_ms if reading.fault is GpuFault.SILENT else now_ms
        return replace(chart, fault=reading.fault, answered_ms=answered_ms, sample=None)
    chart = replace(
        chart,
        answered_ms=now_ms,
        fault=None,
        sample=reading.sample or chart.sample,
        processes=chart.processes if reading.processes is None else reading.processes,
        unsteady=chart.unsteady if reading.processes is None else reading.unsteady,
        vitals=reading.vitals or chart.vitals,
    )
    chart = replace(chart, memory_at_rest_bytes=_at_rest(chart, reading))
    return _forgiven(chart, reading, now_ms)


def after_xid(chart: Chart, number: int, now_ms: int) -> Chart:
    """Only what is wrong with the GPU itself is held against it."""
    if meaning(number) not in {Meaning.DEGRADES, Meaning.LOSES}:
        return chart
    numbers = (*chart.xids, number) if number not in chart.xids else chart.xids
    energy = chart.sample.energy_mj_total if chart.sample else None
    return replace(chart, xids=numbers[-_XIDS_MAX:], xid_ms=now_ms, xid_energy_mj=energy)


def after_use(chart: Chart, *, in_use: bool, now_ms: int) -> Chart:
    """A job has it now, or none."""
    if in_use == chart.in_use:
        return chart
    return replace(chart, in_use=in_use, left_ms=chart.left_ms if in_use else now_ms)


def judge(chart: Chart, now_ms: int) -> GpuHealth:
    """The worst that is known. What a job leaves behind has its time to go before it counts."""
    health = judge_itself(chart, now_ms)
    if health.condition is not Condition.HEALTHY or chart.in_use:
        return health
    if chart.left_ms is not None and now_ms - chart.left_ms < SETTLE_MS:
        return HEALTHY
    dirt = what_is_left(chart)
    return GpuHealth(condition=Condition.DEGRADED, reason=dirt) if dirt else HEALTHY


def judge_itself(chart: Chart, now_ms: int) -> GpuHealth:
    """As `judge`, whoever uses it."""
    deadly = _why_lost(chart)
    if deadly:
        return GpuHealth(condition=Condition.LOST, reason=deadly)
    doubt = _why_degraded(chart, now_ms)
    return GpuHealth(condition=Condition.DEGRADED, reason=doubt) if doubt else HEALTHY


def what_is_left(chart: Chart) -> str:
    """What is on a GPU that nobody has from us; empty where it is clean."""
    if chart.processes:
        named = ", ".join(str(pid) for pid in chart.processes[:_PIDS_NAMED])
        more = len(chart.processes) - _PIDS_NAMED
        others = f" and {more} more" if more > 0 else ""
        return f"in use by processes that belong to no job: {named}{others}"
    used = chart.sample.memory_used_bytes if chart.sample else None
    if used is None or chart.unsteady:
        return ""
    most = (
        MEMORY_AT_REST_BYTES_MAX
        if chart.memory_at_rest_bytes is None
        else chart.memory_at_rest_bytes + MEMORY_SLACK_BYTES
    )
    return f"{used >> 20} MiB of its memory are in use, and no process has them" if used > most else ""


def joined(health: GpuHealth, board: GpuHealth) -> GpuHealth:
    """The health of a slice: the worse of its own and its board's."""
    order = list(Condition)
    return board if order.index(board.condition) > order.index(health.condition) else health


def _why_lost(chart: Chart) -> str:
    if chart.fault in _DEADLY:
        return str(chart.fault)
    for number in chart.xids:
        if meaning(number) is Meaning.LOSES:
            return words(number)
    action = chart.vitals.recovery_action if chart.vitals else None
    if action is not None and action != _NOTHING and action not in _DRAIN:
        return "the driver says that it must be reset"
    return ""


def _why_degraded(chart: Chart, now_ms: int) -> str:
    if chart.fault is not None:
        return str(chart.fault)
    if now_ms - chart.answered_ms > SILENT_MS:
        return str(GpuFault.SILENT)
    if chart.xids:
        return words(chart.xids[0])
    vitals = chart.vitals
    if vitals is None:
        return ""
    if vitals.recovery_action in _DRAIN:
        return "the driver says that it should be drained and reset"
    if vitals.remap_failed:
        return "a bad row of its memory could not be replaced"
    if vitals.remap_pending:
        return "a bad row of its memory is replaced at the next reset"
    if vitals.ecc_uncorrected:
        return "its memory has had errors that could not be corrected since the driver was loaded"
    return ""


def _at_rest(chart: Chart, reading: GpuReading) -> int | None:
    """Rest is when nobody has it and nobody computes on it; less than before is a better measure of it."""
    used = reading.sample.memory_used_bytes if reading.sample else None
    known = chart.memory_at_rest_bytes
    if used is None or reading.processes is None or reading.processes or chart.in_use or reading.unsteady:
        return known
    if known is None:
        return used if used <= MEMORY_AT_REST_BYTES_MAX else None
    return min(known, used)


def _forgiven(chart: Chart, reading: GpuReading, now_ms: int) -> Chart:
    """Errors are held against a GPU until it is proved that it was reset, or that it needs nothing."""
    if not chart.xids:
        return chart
    energy = reading.sample.energy_mj_total if reading.sample else None
    was_reset = energy is not None and chart.xid_energy_mj is not None and energy < chart.xid_energy_mj
    told_well = (
        reading.vitals is not None
        and reading.vitals.recovery_action == _NOTHING
        and now_ms - chart.xid_ms >= ADVICE_MS
    )
    if was_reset or told_well:
        return replace(chart, xids=(), xid_energy_mj=None)
    return chart
