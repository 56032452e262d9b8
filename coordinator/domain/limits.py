"""Every limit of a job against every fact and term of a host: one row of one table each.

The order of the rows is the order in which limits are looked at, and in which "why not" tells them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.domain.host import Gpu, HostRoom
from coordinator.domain.hours import MINUTE_MS, opens_in_ms
from coordinator.domain.policy import order_key
from coordinator.domain.row import Limit, Row
from coordinator.domain.shelf import Ask, Machine, Moment, Request, Shelf, version
from coordinator.domain.words import (
    NETWORK_REMEDIES,
    amount,
    duration,
    duration_told,
    percent,
    plural,
    processors,
    reach,
    size,
)

_REGIONS_TOLD_MAX = 5
_IMAGES_TOLD_MAX = 3


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A host that meets every limit, with the GPUs it would give."""

    gpus: tuple[Gpu, ...]
    gpu_hour_price_micro: int


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """The first limit that the host fails; of several GPU models, that of the model which gets furthest."""

    limit: Limit


_FIELD = {field: place for place, field in enumerate(Ask._fields)}


def _up(value: int) -> int:
    """Eight steps to the doubling, for what is asked to be at most the value."""
    shift = max(0, value.bit_length() - 4)
    return -(-value >> shift) << shift


def _down(value: int) -> int:
    """As `_up`, for what is asked to be at least the value."""
    shift = max(0, value.bit_length() - 4)
    return value >> shift << shift


def _down_to_half_percent(ppm: int) -> int:
    return ppm // 5_000 * 5_000


def _always(_ask: Ask) -> bool:
    return True


def _enough(ask: Ask, shelf: Shelf) -> bool:
    return shelf.count >= ask.gpu_count and (
        shelf.alike or len(shelf.suiting(ask, shelf.gpus)) >= ask.gpu_count
    )


def _free(ask: Ask, shelf: Shelf) -> bool:
    machine = shelf.machine
    return (
        len(shelf.free) >= ask.gpu_count
        and ask.memory_bytes <= machine.memory_bytes_free
        and ask.cpu_milli <= machine.cpu_milli_free
        and (shelf.alike or len(shelf.suiting(ask, shelf.free)) >= ask.gpu_count)
    )


def _regions(shelves: Iterable[Shelf]) -> str:
    names = sorted({shelf.machine.region for shelf in shelves} - {""})
    more = ", …" if len(names) > _REGIONS_TOLD_MAX else ""
    return f"there are hosts in {', '.join(names[:_REGIONS_TOLD_MAX])}{more}" if names else ""


def capability(shelf: Shelf) -> str:
    """Of the best of its GPUs, in the host's own words."""
    return max((gpu.compute_capability for gpu in shelf.gpus), key=version)


def run_ms_now(shelf: Shelf) -> int:
    """The longest time limit that its hours leave, told in whole minutes and with one to spare."""
    left_ms = shelf.machine.open_ms_left // MINUTE_MS * MINUTE_MS - MINUTE_MS
    return max(0, min(left_ms, duration_told(shelf.machine.run_ms_max)))


def hours_told(shelves: Iterable[Shelf]) -> str:
    most_ms = max(run_ms_now(shelf) for shelf in shelves)
    if most_ms:
        return f"{duration(most_ms)} would do now"
    wait_ms = min(opens_in_ms(shelf.machine.hours, shelf.machine.moment.ms) for shelf in shelves)
    return f"the first opens in {duration(-(-wait_ms // MINUTE_MS) * MINUTE_MS)}"


def images_told(shelves: Iterable[Shelf]) -> str:
    policies = (shelf.machine.images for shelf in shelves)
    known = sorted({pattern for policy in policies if policy for pattern in policy.allowed})
    more = ", …" if len(known) > _IMAGES_TOLD_MAX else ""
    return f"{', '.join(known[:_IMAGES_TOLD_MAX])}{more} would do" if known else ""


def _driver(shelf: Shelf) -> str:
    return shelf.machine.host.facts.driver_version


def _cuda(shelf: Shelf) -> str:
    return shelf.machine.host.facts.cuda_version


def _best_version(texts: Iterable[tuple[tuple[int, ...], str]]) -> str:
    best = max(texts)[1]
    return f"{best} would do" if best else ""


TABLE: tuple[Row, ...] = (
    Row(
        limit=Limit.AWAY,
        asked=_always,
        met=lambda _ask, shelf: shelf.machine.online,
        words=lambda _: "takes no new jobs now: it is away, paused or held back",
    ),
    Row(
        limit=Limit.MODEL,
        place=_FIELD["model"],
        asked=lambda ask: ask.model,
        met=lambda ask, shelf: ask.model in shelf.model_plain,
        words=lambda request: f"has no {request.spec.gpus.model or 'GPU'} for sale",
        remedy=lambda _request, _shelves: "another GPU model",
    ),
    Row(
        limit=Limit.SIMULATED,
        place=_FIELD["real"],
        asked=lambda ask: ask.real,
        met=lambda _ask, shelf: not shelf.simulated,
        words=lambda _: "has GPUs of that name that are only simulated",
        remedy=lambda _request, _shelves: "simulated ones would do, with --simulated",
    ),
    Row(
        limit=Limit.VRAM,
        place=_FIELD["vram_bytes"],
        asked=lambda ask: ask.vram_bytes,
        met=lambda ask, shelf: ask.vram_bytes <= shelf.vram_bytes,
        words=lambda request: f"has less than {size(request.spec.gpus.vram_bytes_min)} of GPU memory",
        remedy=lambda _, shelves: f"{size(max(shelf.vram_bytes for shelf in shelves))} would do",
    ),
    Row(
        limit=Limit.COMPUTE_CAPABILITY,
        place=_FIELD["compute_capability"],
        asked=lambda ask: ask.compute_capability,
        met=lambda ask, shelf: ask.compute_capability <= shelf.compute_capability,
        words=lambda request: f"has compute capability below {request.spec.gpus.compute_capability_min}",
        remedy=lambda _, shelves: _best_version(
            (shelf.compute_capability, capability(shelf)) for shelf in shelves
        ),
    ),
    Row(
        limit=Limit.COUNT,
        place=_FIELD["gpu_count"],
        asked=_always,
        met=_enough,
        roughly=lambda ask, shelf: shelf.count >= ask.gpu_count,
        words=lambda request: f"has fewer than {plural(request.spec.gpus.count, 'such GPU')}",
        remedy=lambda request, shelves: (
            f"{max(len(shelf.suiting(request.ask, shelf.gpus)) for shelf in shelves)} would do"
        ),
    ),
    Row(
        limit=Limit.FAILED_BEFORE,
        asked=lambda ask: ask.hosts_failed,
        met=lambda ask, shelf: shelf.host_id not in ask.hosts_failed,
        words=lambda _: "failed this job before",
    ),
    Row(
        limit=Limit.ISOLATION,
        place=_FIELD["isolation"],
        asked=lambda ask: ask.isolation,
        met=lambda ask, shelf: shelf.machine.isolation >= ask.isolation,
        words=lambda _: "gives no container isolation",
        remedy=lambda _request, _shelves: "isolation 'process' would do, where you are trusted",
    ),
    Row(
        limit=Limit.TRUST,
        place=_FIELD["account"],
        asked=lambda ask: not ask.isolation,
        met=lambda ask, shelf: shelf.machine.isolation > 0 or shelf.machine.trusts(ask),
        words=lambda _: "runs jobs without isolation, and its seller has not named you as trusted",
    ),
    Row(
        limit=Limit.IMAGE,
        place=_FIELD["has_image"],
        asked=lambda ask: not ask.has_image,
        met=lambda _ask, shelf: not shelf.machine.isolation,
        words=lambda _: "runs containers, and the job names no image",
        remedy=lambda _request, _shelves: "an image",
    ),
    Row(
        limit=Limit.IMAGE_POLICY,
        asked=lambda ask: ask.image,
        concerns=lambda shelf: shelf.machine.images is not None,
        met=lambda ask, shelf: shelf.machine.images is None or shelf.machine.images.takes(ask.image),
        words=lambda request: f"takes no image {request.spec.image}, by its seller's rule",
        remedy=lambda _, shelves: images_told(shelves),
    ),
    Row(
        limit=Limit.NETWORK,
        place=_FIELD["network"],
        asked=lambda ask: ask.network,
        met=lambda ask, shelf: shelf.machine.lets_reach(ask),
        roughly=lambda ask, shelf: ask.network <= shelf.machine.network,
        words=lambda request: f"lets no job reach {reach(request.spec)}",
        remedy=lambda _, shelves: NETWORK_REMEDIES[max(shelf.machine.network for shelf in shelves)],
    ),
    Row(
        limit=Limit.REGION,
        place=_FIELD["regions"],
        asked=lambda ask: ask.regions,
        met=lambda ask, shelf: shelf.machine.region in ask.regions,
        words=lambda request: f"is not in {' or '.join(request.spec.host.regions)}",
        remedy=lambda _, shelves: _regions(shelves),
    ),
    Row(
        limit=Limit.DRIVER,
        place=_FIELD["driver_version"],
        asked=lambda ask: ask.driver_version,
        met=lambda ask, shelf: ask.driver_version <= shelf.machine.driver_version,
        words=lambda request: f"has a driver older than {request.spec.host.driver_version_min}",
        remedy=lambda _, shelves: _best_version(
            (shelf.machine.driver_version, _driver(shelf)) for shelf in shelves
        ),
    ),
    Row(
        limit=Limit.CUDA,
        place=_FIELD["cuda_version"],
        asked=lambda ask: ask.cuda_version,
        met=lambda ask, shelf: ask.cuda_version <= shelf.machine.cuda_version,
        words=lambda request: f"takes no CUDA as new as {request.spec.host.cuda_version_min}",
        remedy=lambda _, shelves: _best_version(
            (shelf.machine.cuda_version, _cuda(shelf)) for shelf in shelves
        ),
    ),
    Row(
        limit=Limit.LABELS,
        place=_FIELD["labels"],
        asked=lambda ask: ask.labels,
        met=lambda ask, shelf: ask.labels <= shelf.machine.labels,
        words=lambda request: (
            "lacks a label of "
            + ", ".join(f"{name}={value}" for name, value in sorted(request.spec.host.labels.items()))
        ),
    ),
    Row(
        limit=Limit.RELIABILITY,
        place=_FIELD["reliability_ppm"],
        loosen=_down_to_half_percent,
        asked=lambda ask: ask.reliability_ppm,
        met=lambda ask, shelf: ask.reliability_ppm <= shelf.machine.reliability_ppm,
        words=lambda request: f"has a reliability below {percent(request.spec.host.reliability_ppm_min)}",
        remedy=lambda _, shelves: (
            f"{percent(max(shelf.machine.reliability_ppm for shelf in shelves))} would do"
        ),
    ),
    Row(
        limit=Limit.MEMORY,
        place=_FIELD["memory_bytes"],
        loosen=_down,
        asked=lambda ask: ask.memory_bytes,
        met=lambda ask, shelf: ask.memory_bytes <= shelf.machine.memory_bytes,
        words=lambda request: f"has less than {size(request.spec.memory_bytes)} of memory",
        remedy=lambda _, shelves: f"{size(max(shelf.machine.memory_bytes for shelf in shelves))} would do",
    ),
    Row(
        limit=Limit.CPU,
        place=_FIELD["cpu_milli"],
        loosen=_down,
        asked=lambda ask: ask.cpu_milli,
        met=lambda ask, shelf: ask.cpu_milli <= shelf.machine.cpu_milli,
        words=lambda request: f"has fewer than {processors(request.spec.cpu_milli)} processors",
        remedy=lambda _, shelves: f"{processors(max(shelf.machine.cpu_milli for shelf in shelves))} would do",
    ),
    Row(
        limit=Limit.PRICE,
        place=_FIELD["price_cap"],
        loosen=_up,
        asked=lambda ask: ask.price_cap,
        met=lambda ask, shelf: shelf.price <= ask.price_cap,
        words=lambda request: (
            f"asks more than {amount(request.spec.gpu_hour_price_micro_max)} credits per GPU-hour"
        ),
        remedy=lambda _, shelves: f"{amount(min(shelf.price for shelf in shelves))} would do",
    ),
    Row(
        limit=Limit.RUN_TIME,
        place=_FIELD["run_ms"],
        loosen=_down,
        asked=_always,
        met=lambda ask, shelf: ask.run_ms <= shelf.machine.run_ms_max,
        words=lambda request: f"takes no job as long as {duration(request.spec.run_ms_max)}",
        remedy=lambda _, shelves: f"{duration(max(shelf.machine.run_ms_max for shelf in shelves))} would do",
    ),
    Row(
        limit=Limit.HOURS,
        asked=_always,
        concerns=lambda shelf: bool(shelf.machine.hours),
        met=lambda ask, shelf: max(1, ask.run_ms) <= shelf.machine.open_ms_left,
        words=lambda request: (
            f"closes, by its seller's hours, before a job of {duration(request.spec.run_ms_max)} is over"
        ),
        remedy=lambda _, shelves: hours_told(shelves),
    ),
    Row(
        limit=Limit.BUDGET,
        place=_FIELD["price_borne"],
        loosen=_up,
        asked=_always,
        met=lambda ask, shelf: shelf.price <= ask.price_borne,
        words=lambda _: "costs more for its first second than the budget holds",
        remedy=lambda request, shelves: (
            f"{amount(min(budget_needed(request, shelf) for shelf in shelves))} more would do"
        ),
    ),
    Row(
        limit=Limit.BUSY,
        asked=_always,
        met=_free,
        words=lambda _: "has what is asked for, but it is in use",
    ),
)
ROWS = {row.limit: row for row in TABLE}
# What was worked out before: a memory of the function below, no state.
_ROWS_BY_SHAPE: dict[tuple[object, ...], tuple[Row, ...]] = {}
_SHAPES_MAX = 10_000


def budget_needed(request: Request, shelf: Shelf) -> int:
    """How much more money would pay the shelf for the shortest run worth starting."""
    needed = -(-shelf.price * request.spec.gpus.count // 3_600)
    return max(0, needed - request.budget_left_micro)


def rows_asked(ask: Ask, but: frozenset[Limit] = frozenset()) -> tuple[Row, ...]:
    """The rows that can be missed at all by this ask."""
    shape = (but, *map(bool, ask))
    rows = _ROWS_BY_SHAPE.get(shape)
    if rows is None:
        rows = tuple(row for row in TABLE if row.limit not in but and row.asked(ask))
        if len(_ROWS_BY_SHAPE) < _SHAPES_MAX:
            _ROWS_BY_SHAPE[shape] = rows
    return rows


def first_missed(rows: Iterable[Row], ask: Ask, shelf: Shelf) -> Limit | None:
    for row in rows:
        if not row.met(ask, shelf):
            return row.limit
    return None


def choose(ask: Ask, shelf: Shelf) -> tuple[Gpu, ...]:
    """The GPUs that a job gets of a shelf that it fits: those with the least memory that is enough."""
    if shelf.alike:
        return shelf.free[: ask.gpu_count]
    return tuple(shelf.suiting(ask, shelf.free)[: ask.gpu_count])


def fit(request: Request, room: HostRoom, now_ms: int = 0) -> Fit | Misfit:
    """The GPUs that the host would give, of the model that its buyer's policy prefers; or why none."""
    machine, ask = Machine(room, Moment(now_ms)), request.ask
    rows = rows_asked(ask)
    missed = {shelf: first_missed(rows, ask, shelf) for shelf in machine.shelves}
    fitting = [shelf for shelf, limit in missed.items() if limit is None]
    if fitting:
        key = order_key(request.spec.policy)
        shelf = min(fitting, key=key)
        return Fit(gpus=choose(ask, shelf), gpu_hour_price_micro=shelf.price)
    limits = [limit for limit in missed.values() if limit is not None]
    if limits:
        return Misfit(limit=max(limits))
    return Misfit(limit=Limit.MODEL if machine.online else Limit.AWAY)
