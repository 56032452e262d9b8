"""Why a job has no host: which limit removed how many, and the cheapest single change that would place it."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from coordinator.domain.changes import KINDS, Kind
from coordinator.domain.host import HostRoom
from coordinator.domain.index import Index, only_meeting
from coordinator.domain.job import JobSpec, Policy
from coordinator.domain.limits import ROWS, first_missed, rows_asked
from coordinator.domain.order import Mask, Order
from coordinator.domain.row import Limit, Row
from coordinator.domain.shelf import Ask, Request, Shelf

# So many shelves, the cheapest, are looked at for each kind of change, and so many of the cheapest changes
# tried in earnest before it is said that none would do.
_LOOKED_MAX = 300
_TRIED_MAX = 100
_ASKED_FIRST = frozenset({Limit.AWAY, Limit.MODEL})

# What is said of these is the same whichever hosts fail.
_REMEDY_ALIKE = frozenset(
    {Limit.MODEL, Limit.SIMULATED, Limit.FAILED_BEFORE, Limit.ISOLATION, Limit.TRUST, Limit.IMAGE}
    | {Limit.LABELS, Limit.BUSY}
)

_Option = tuple[int, int, str, str, Kind, Shelf]


@dataclass(frozen=True, kw_only=True)
class LimitCount:
    """How many hosts fell to one limit, and what would have kept the easiest of them."""

    limit: str
    host_count: int
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """An order that would be placed now, and how it differs, as a sentence. See `changes` for the price."""

    spec: JobSpec
    words: str
    price_ppm: int


@dataclass(frozen=True, kw_only=True)
class WhyNot:
    """`counts` is in the order in which limits are looked at; hosts that fit are in none of them."""

    host_count: int
    counts: list[tuple[Limit, int]]
    limits: list[LimitCount]
    change: Change | None


def why_not(request: Request, rooms: Index | Sequence[HostRoom]) -> list[LimitCount]:
    return explain(request, rooms).limits


def explain(request: Request, rooms: Index | Sequence[HostRoom], now_ms: int = 0) -> WhyNot:
    """Given an index, its own moment counts."""
    index = rooms if isinstance(rooms, Index) else Index(rooms, now_ms)
    order, ask = index.order(Policy.CHEAPEST), request.ask
    away_count = len(index) - index.online_count
    told: list[tuple[Limit, int, list[Shelf]]] = [(Limit.AWAY, away_count, [])] if away_count else []
    # Hosts that sell nothing have no shelf: they fall to MODEL, which is always asked here.
    host_count, left = index.online_count, order.online
    for row in (ROWS[Limit.MODEL], *rows_asked(ask, but=_ASKED_FIRST)):
        meeting = only_meeting(order, row, ask, _offered(order, row, ask, left))
        count = order.host_count(meeting)
        if count < host_count:
            failing = order.members(left & ~meeting)
            one_will_do = row.limit in _REMEDY_ALIKE
            told.append((row.limit, host_count - count, list(islice(failing, 1 if one_will_do else None))))
        host_count, left = count, meeting
    return WhyNot(
        host_count=len(index),
        counts=[(limit, count) for limit, count, _ in told],
        limits=[
            LimitCount(limit=ROWS[limit].words(request), host_count=count, remedy=_remedy(limit, request, of))
            for limit, count, of in told
        ],
        change=None if left else _cheapest(request, order),
    )


def _offered(order: Order, row: Row, ask: Ask, mask: Mask) -> Mask:
    """What is kept free for others is in use for this job."""
    return mask & order.free(ask.gpu_count) if row.limit is Limit.BUSY else mask


def _remedy(limit: Limit, request: Request, shelves: Sequence[Shelf]) -> str:
    return ROWS[limit].remedy(request, shelves) if shelves else ""


def _cheapest(request: Request, order: Order) -> Change | None:
    """The first that really would place the job, of all in the order of their price."""
    options = [option for kind in KINDS for option in _options(request, order, kind)]
    for ppm, _, _, _, kind, shelf in heapq.nsmallest(_TRIED_MAX, options, key=lambda option: option[:4]):
        spec = kind.changed(request, shelf)
        more_micro = spec.budget_micro - request.spec.budget_micro
        changed = replace(request, spec=spec, budget_left_micro=request.budget_left_micro + more_micro)
        if first_missed(rows_asked(changed.ask), changed.ask, shelf) is None:
            return Change(spec=spec, words=kind.words(request.spec, spec), price_ppm=ppm)
    return None


def _options(request: Request, order: Order, kind: Kind) -> Iterator[_Option]:
    """Where the change would help: shelves that fail, about, nothing but what it mends; the cheapest."""
    ask = request.ask
    mask = order.free(1 if Limit.BUSY in kind.mends else ask.gpu_count)
    mask = order.meeting(rows_asked(ask, but=kind.mends | {Limit.AWAY, Limit.BUSY}), ask, mask, [])
    for shelf in islice(order.members(mask), _LOOKED_MAX):
        ppm = kind.price_ppm(request, shelf)
        if ppm is not None:
            yield ppm, shelf.price, shelf.host_id, shelf.model, kind, shelf
