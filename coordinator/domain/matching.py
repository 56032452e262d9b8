"""Which host gets which job, and why others do not. Pure; the whole of a pass is one call."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import IntEnum

from coordinator.domain.host import Gpu, Host, HostRoom, HostState, Isolation, may_run_unisolated
from coordinator.domain.job import GpuRequest, Job, JobSpec
from coordinator.domain.pricing import hour_price_micro, run_ms_affordable

# A run shorter than this is not worth starting: the budget would be spent before anything is done.
RUN_MS_WORTH_STARTING = 1_000


class Limit(IntEnum):
    """Why a host is passed over. A host counts at the first that it fails, in this order."""

    AWAY = 1
    FAILED_BEFORE = 2
    ISOLATION = 3
    TRUST = 4
    IMAGE = 5
    MODEL = 6
    VRAM = 7
    COUNT = 8
    PRICE = 9
    RUN_TIME = 10
    BUDGET = 11
    BUSY = 12


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A job on a host: these GPUs, at this price for all of them for an hour."""

    job_id: str
    host: Host
    gpus: tuple[Gpu, ...]
    hour_price_micro: int


@dataclass(frozen=True, kw_only=True)
class LimitCount:
    """How many hosts fell to one limit, and what would have kept the easiest of them."""

    limit: str
    host_count: int
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A host that meets every limit, with the GPUs it would give."""

    gpus: tuple[Gpu, ...]
    gpu_hour_price_micro: int


@dataclass(frozen=True, kw_only=True)
class Misfit:
    limit: Limit
    # What the host has of the thing that was asked for: a price, bytes, a count, milliseconds.
    has: int = 0


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job as matching sees it: its order, whose it is, and the hosts that failed it before."""

    spec: JobSpec
    account_id: str
    account_name: str
    budget_left_micro: int
    hosts_failed: AbstractSet[str] = frozenset()


def model_matches(model: str, wanted: str) -> bool:
    """Part of the name, without regard to case, blanks, dashes: "rtx4090" finds "GeForce RTX 4090"."""
    return _plain(wanted) in _plain(model)


def fit(request: Request, room: HostRoom) -> Fit | Misfit:
    """The first limit that the host fails, or the GPUs it would give: cheapest model, best fit."""
    host, spec = room.host, request.spec
    if host.state is not HostState.ONLINE:
        return Misfit(limit=Limit.AWAY)
    if host.id in request.hosts_failed:
        return Misfit(limit=Limit.FAILED_BEFORE)
    if host.facts.isolation < spec.isolation_min:
        return Misfit(limit=Limit.ISOLATION)
    if host.facts.isolation is Isolation.PROCESS and not may_run_unisolated(
        host, request.account_id, request.account_name
    ):
        return Misfit(limit=Limit.TRUST)
    if host.facts.isolation is Isolation.CONTAINER and not spec.image:
        return Misfit(limit=Limit.IMAGE)
    return _fit_gpus(request, room)


def _fit_gpus(request: Request, room: HostRoom) -> Fit | Misfit:
    host, spec, wanted = room.host, request.spec, request.spec.gpus
    chosen = _of_model(host, wanted)
    if not chosen:
        return Misfit(limit=Limit.MODEL)
    large = [gpu for gpu in chosen if gpu.vram_bytes >= wanted.vram_bytes_min]
    if not large:
        return Misfit(limit=Limit.VRAM, has=max(gpu.vram_bytes for gpu in chosen))
    models = {gpu.model: sum(g.model == gpu.model for g in large) for gpu in large}
    many = {model: count for model, count in models.items() if count >= wanted.count}
    if not many:
        return Misfit(limit=Limit.COUNT, has=max(models.values()))
    price = min(host.terms.prices[model] for model in many)
    if spec.gpu_hour_price_micro_max and price > spec.gpu_hour_price_micro_max:
        return Misfit(limit=Limit.PRICE, has=price)
    if host.terms.run_ms_max and spec.run_ms_max > host.terms.run_ms_max:
        return Misfit(limit=Limit.RUN_TIME, has=host.terms.run_ms_max)
    whole_price = hour_price_micro(price, wanted.count)
    if run_ms_affordable(whole_price, request.budget_left_micro) < RUN_MS_WORTH_STARTING:
        return Misfit(limit=Limit.BUDGET, has=-(-whole_price * RUN_MS_WORTH_STARTING // 3_600_000))
    return _free_gpus(request, room, frozenset(many))


def _free_gpus(request: Request, room: HostRoom, models: AbstractSet[str]) -> Fit | Misfit:
    spec, prices = request.spec, room.host.terms.prices
    for model in sorted(models, key=lambda m: (prices[m], m)):
        if spec.gpu_hour_price_micro_max and prices[model] > spec.gpu_hour_price_micro_max:
            break
        free = [g for g in room.free if g.model == model and g.vram_bytes >= spec.gpus.vram_bytes_min]
        if len(free) >= spec.gpus.count:
            gpus = tuple(sorted(free, key=lambda g: (g.vram_bytes, g.uuid))[: spec.gpus.count])
            return Fit(gpus=gpus, gpu_hour_price_micro=prices[model])
    return Misfit(limit=Limit.BUSY)


def best(request: Request, rooms: Sequence[HostRoom]) -> tuple[HostRoom, Fit] | None:
    """Cheapest first; among equals the host with the fewest free GPUs, so that big slots stay whole."""
    found = [(room, fitting) for room in rooms if isinstance(fitting := fit(request, room), Fit)]
    if not found:
        return None
    return min(found, key=lambda f: (f[1].gpu_hour_price_micro, len(f[0].free), f[0].host.id))


def place(
    requests: Sequence[tuple[Job, Request]], rooms: Sequence[HostRoom]
) -> tuple[list[Placement], list[str]]:
    """One pass over the queue, in its order: placements, and the ids of jobs that must go on waiting."""
    left = list(rooms)
    placements: list[Placement] = []
    waiting: list[str] = []
    for job, request in requests:
        choice = best(request, left)
        if choice is None:
            waiting.append(job.id)
            continue
        room, fitting = choice
        left = _without(left, fitting.gpus)
        placements.append(
            Placement(
                job_id=job.id,
                host=room.host,
                gpus=fitting.gpus,
                hour_price_micro=hour_price_micro(fitting.gpu_hour_price_micro, len(fitting.gpus)),
            )
        )
    return placements, waiting


def _without(rooms: Sequence[HostRoom], gpus: Sequence[Gpu]) -> list[HostRoom]:
    """In whichever rooms they are: a second host that claims a GPU of the first must not get it too."""
    taken = {gpu.uuid for gpu in gpus}
    return [
        HostRoom(host=room.host, free=tuple(gpu for gpu in room.free if gpu.uuid not in taken))
        if any(gpu.uuid in taken for gpu in room.free)
        else room
        for room in rooms
    ]


def why_not(request: Request, rooms: Sequence[HostRoom]) -> list[LimitCount]:
    """For a request that has no host: which limit removed how many, in the order they are looked at."""
    misfits = [m for room in rooms if isinstance(m := fit(request, room), Misfit)]
    counts = []
    for limit in Limit:
        of_limit = [m for m in misfits if m.limit is limit]
        if of_limit:
            words, remedy = _words(limit, request.spec, [m.has for m in of_limit])
            counts.append(LimitCount(limit=words, host_count=len(of_limit), remedy=remedy))
    return counts


def _words(limit: Limit, spec: JobSpec, has: Sequence[int]) -> tuple[str, str]:
    wanted = spec.gpus
    table: dict[Limit, tuple[str, str]] = {
        Limit.AWAY: ("not connected now", ""),
        Limit.FAILED_BEFORE: ("failed this job before", ""),
        Limit.ISOLATION: (
            "gives no container isolation",
            "isolation 'process' would do, where you are trusted",
        ),
        Limit.TRUST: ("its seller has not named you as trusted", ""),
        Limit.IMAGE: ("runs containers, and the job names no image", "an image"),
        Limit.MODEL: (f"has no {wanted.model or 'GPU'} for sale", "another GPU model"),
        Limit.VRAM: (
            f"has less than {wanted.vram_bytes_min >> 20} MiB of GPU memory",
            f"{max(has) >> 20} MiB would do",
        ),
        Limit.COUNT: (f"has fewer than {wanted.count} such GPUs", f"{max(has)} would do"),
        Limit.PRICE: (
            f"asks more than {_credits(spec.gpu_hour_price_micro_max)} credits per GPU-hour",
            f"{_credits(min(has))} would do",
        ),
        Limit.RUN_TIME: (
            f"takes no job as long as {spec.run_ms_max // 1000} s",
            f"{max(has) // 1000} s would do",
        ),
        Limit.BUDGET: (
            "costs more for its first second than the budget holds",
            f"a budget of {_credits(min(has))} would do",
        ),
        Limit.BUSY: ("has the GPUs, but they are in use", ""),
    }
    return table[limit]


def _of_model(host: Host, wanted: GpuRequest) -> list[Gpu]:
    return [
        gpu
        for gpu in host.facts.gpus
        if gpu.model in host.terms.prices and model_matches(gpu.model, wanted.model)
    ]


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _credits(micro: int) -> str:
    return f"{micro // 1_000_000}.{micro % 1_000_000:06d}"
