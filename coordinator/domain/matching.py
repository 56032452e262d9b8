"""Which host gets which job. Pure but for the index it is given, which it keeps true; a pass is one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coordinator.domain.host import Gpu, Host, HostRoom
from coordinator.domain.index import Index
from coordinator.domain.job import Job, JobSpec
from coordinator.domain.limits import Fit, Misfit, choose, fit
from coordinator.domain.policy import order_key
from coordinator.domain.pricing import hour_price_micro
from coordinator.domain.row import Limit
from coordinator.domain.shelf import Machine, Moment, Request, Share, Shelf, model_matches
from coordinator.domain.turns import Lane, Served, Turns, after_serving
from coordinator.domain.why import LimitCount, explain, why_not

__all__ = [
    "Fit",
    "Index",
    "Limit",
    "LimitCount",
    "Misfit",
    "Pass",
    "Placement",
    "Request",
    "best",
    "explain",
    "fit",
    "model_matches",
    "place",
    "run_pass",
    "share_of",
    "why_not",
]

# A job that needs several things at once may wait for ever while small jobs take each that comes free. After
# this long a host is kept free for it, one for a buyer, and never more than a part of all hosts.
KEEP_FREE_AFTER_MS = 600_000
_KEPT_FREE_PART = 10


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A job on a host: these GPUs, at this price for all of them for an hour."""

    job_id: str
    host: Host
    gpus: tuple[Gpu, ...]
    hour_price_micro: int


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What a pass decided. `waiting` are the ids of jobs that must go on waiting, in their order."""

    placements: list[Placement]
    waiting: list[str]
    served: Mapping[Lane, Served]


def share_of(spec: JobSpec, host_id: str, gpus: Sequence[Gpu]) -> Share:
    """What a job takes of a host: to be released when its attempt has ended."""
    return Share(host_id, gpus, spec.memory_bytes, spec.cpu_milli)


def best(request: Request, rooms: Index | Sequence[HostRoom], now_ms: int = 0) -> tuple[HostRoom, Fit] | None:
    """The host that the buyer's policy prefers of all that fit. Given rooms, all of them are looked at."""
    policy = request.spec.policy
    if isinstance(rooms, Index):
        shelf = rooms.best(request.ask, policy)
        return None if shelf is None else (shelf.machine.room(), _fit(request, shelf))
    key = order_key(policy)
    found = [(room, f) for room in rooms if isinstance(f := fit(request, room, now_ms), Fit)]
    return min(found, key=lambda choice: key(_shelf(*choice)), default=None)


def run_pass(
    waiting: Sequence[tuple[Job, Request]],
    index: Index,
    *,
    held: Mapping[str, int],
    served: Mapping[Lane, Served],
    now_ms: int,
    whole_queue: bool = True,
) -> Pass:
    """Give hosts to as many of the jobs as fit, each in its turn. The index is left as the market is then.

    `held` counts the GPUs that each account has now. A new job may be tried by itself, without the queue:
    what it can get then, nobody who waits could use, but for hosts that are kept free, which it can't get.
    """
    index.now_ms = now_ms
    if whole_queue:
        index.lift_all()
    turns = Turns(waiting, held, served, now_ms)
    placements: list[Placement] = []
    left: list[str] = []
    placed: list[Job] = []
    keepers: set[str] = set()
    for job, request in turns:
        ask = request.ask
        shelf = index.best(ask, request.spec.policy)
        if shelf is None:
            left.append(job.id)
            if now_ms - job.queued_ms >= KEEP_FREE_AFTER_MS and job.account_id not in keepers:
                _keep_free(index, job, request, keepers)
            continue
        turns.given(job.account_id, ask.gpu_count)
        placements.append(
            Placement(
                job_id=job.id,
                host=shelf.machine.host,
                gpus=index.give(shelf, ask),
                hour_price_micro=hour_price_micro(shelf.price, ask.gpu_count),
            )
        )
        placed.append(job)
    return Pass(placements=placements, waiting=left, served=after_serving(served, placed, now_ms))


def place(
    requests: Sequence[tuple[Job, Request]], rooms: Sequence[HostRoom]
) -> tuple[list[Placement], list[str]]:
    """A pass over a market seen for the first time, where nobody holds anything and nobody has waited."""
    outcome = run_pass(requests, Index(rooms), held={}, served={}, now_ms=0)
    return outcome.placements, outcome.waiting


def _keep_free(index: Index, job: Job, request: Request, keepers: set[str]) -> None:
    """One GPU and nothing else can't be taken apart: such a job gets the next that comes free in its turn."""
    ask = request.ask
    if ask.gpu_count == 1 and not ask.memory_bytes and not ask.cpu_milli:
        return
    if index.kept_free_count * _KEPT_FREE_PART >= len(index):
        return
    shelf = index.emptiest(ask, request.spec.policy)
    if shelf is not None:
        index.keep_free(shelf.host_id, job.id)
        keepers.add(job.account_id)


def _fit(request: Request, shelf: Shelf) -> Fit:
    return Fit(gpus=choose(request.ask, shelf), gpu_hour_price_micro=shelf.price)


def _shelf(room: HostRoom, fitting: Fit) -> Shelf:
    return next(shelf for shelf in Machine(room, Moment()).shelves if shelf.model == fitting.gpus[0].model)
