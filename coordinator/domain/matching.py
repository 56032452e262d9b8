"""Which host gets which job. Pure but for the index it is given, which it keeps true; a pass is one call."""

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.domain.host import Gpu, Host, HostRoom
from coordinator.domain.index import Index
from coordinator.domain.job import JobSpec
from coordinator.domain.limits import Fit, Misfit, choose, fit
from coordinator.domain.policy import order_key
from coordinator.domain.pricing import hour_price_micro
from coordinator.domain.row import Limit
from coordinator.domain.shelf import Machine, Moment, Request, Share, Shelf, model_matches
from coordinator.domain.turns import LineKey, Turns, Waiter
from coordinator.domain.why import LimitCount, explain, why_not

__all__ = [
    "Fit",
    "Index",
    "Limit",
    "LimitCount",
    "Misfit",
    "Placement",
    "Request",
    "best",
    "explain",
    "fit",
    "model_matches",
    "run_pass",
    "share_of",
    "why_not",
]

# A job that needs several things at once may wait for ever while small jobs take each that comes free. After
# this long a host is kept free for it, one for a buyer, and never more than a part of all hosts.
KEEP_FREE_AFTER_MS = 600_000
_KEPT_FREE_PART = 10
# However many.
ANY = -1


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A job on a host: these GPUs, at this price for all of them for an hour."""

    job_id: str
    host: Host
    gpus: tuple[Gpu, ...]
    hour_price_micro: int


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
    turns: Turns,
    index: Index,
    now_ms: int,
    broken: list[tuple[str, Exception]],
    *,
    whole_queue: bool = True,
    looks_max: int = ANY,
    most: int = ANY,
) -> list[Placement]:
    """Give hosts to as many of the jobs as fit, each in its turn. The index is left as the market is then.

    New jobs may be tried by themselves, without the queue: what they can get then, nobody who waits could
    use, but for hosts that are kept free, which they can't get. No more than `looks_max` lines that can't be
    placed are looked at. A job that makes a look fail is added to `broken`, and its line is passed over.
    """
    index.now_ms = now_ms
    if whole_queue:
        index.lift_all()
    placements: list[Placement] = []
    keepers: set[str] = set()
    for key, waiter in turns:
        try:
            shelf = index.best(key.ask, key.policy)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, others must not wait for that
            broken.append((waiter.id, error))
            turns.pass_over()
            continue
        if shelf is None:
            turns.pass_over()
            if whole_queue and now_ms - waiter.queued_ms >= KEEP_FREE_AFTER_MS:
                _keep_free(index, key, waiter, keepers)
            looks_max -= 1
            if not looks_max:
                break
            continue
        turns.given(key.account_id, key.ask.gpu_count)
        placements.append(
            Placement(
                job_id=waiter.id,
                host=shelf.machine.host,
                gpus=index.give(shelf, key.ask),
                hour_price_micro=hour_price_micro(shelf.price, key.ask.gpu_count),
            )
        )
        if len(placements) == most:
            break
    return placements


def _keep_free(index: Index, key: LineKey, waiter: Waiter, keepers: set[str]) -> None:
    """One GPU and nothing else can't be taken apart: such a job gets the next that comes free in its turn."""
    ask = key.ask
    if key.account_id in keepers or (ask.gpu_count == 1 and not ask.memory_bytes and not ask.cpu_milli):
        return
    if index.kept_free_count * _KEPT_FREE_PART >= len(index):
        return
    shelf = index.emptiest(ask, key.policy)
    if shelf is not None:
        index.keep_free(shelf.host_id, waiter.id)
        keepers.add(key.account_id)


def _fit(request: Request, shelf: Shelf) -> Fit:
    return Fit(gpus=choose(request.ask, shelf), gpu_hour_price_micro=shelf.price)


def _shelf(room: HostRoom, fitting: Fit) -> Shelf:
    return next(shelf for shelf in Machine(room, Moment()).shelves if shelf.model == fitting.gpus[0].model)
