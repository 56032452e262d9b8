"""Why a job has no host: which limit removed how many, and the cheapest single change that would place it."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

from coordinator.domain.changes import KINDS_MENDING, MODEL_KIND, Kind
from coordinator.domain.host import HostRoom
from coordinator.domain.index import Index
from coordinator.domain.job import JobSpec, Policy
from coordinator.domain.limits import ROWS, Limit, Row, first_missed, rows_asked
from coordinator.domain.shelf import Request, Shelf

# So many of the cheapest changes are tried in earnest before it is said that none would do.
_TRIED_MAX = 20

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


def explain(request: Request, rooms: Index | Sequence[HostRoom]) -> WhyNot:
    index = rooms if isinstance(rooms, Index) else Index(rooms)
    ask = request.ask
    rows = rows_asked(ask, but=frozenset({Limit.AWAY, Limit.MODEL}))
    failed: dict[Limit, list[Shelf]] = {}
    furthest: dict[str, Limit | None] = {}
    options: list[_Option] = []
    for shelf in index.shelves_of(index.models_matching(ask.model)):
        limit, kinds = _misses(rows, request, shelf, kept_free=index.is_aside(shelf.host_id))
        options += _options(request, shelf, kinds)
        host_id = shelf.host_id
        if host_id not in furthest:
            furthest[host_id] = limit
        else:
            # Of a host with several models the one that gets furthest counts.
            before = furthest[host_id]
            furthest[host_id] = None if before is None or limit is None else max(before, limit)
        if limit is not None:
            failed.setdefault(limit, []).append(shelf)
    counts = _counts(index, furthest)
    return WhyNot(
        host_count=len(index),
        counts=counts,
        limits=[_told(request, index, limit, count, failed.get(limit, [])) for limit, count in counts],
        change=_cheapest(request, index, options),
    )


def _misses(
    rows: Sequence[Row], request: Request, shelf: Shelf, *, kept_free: bool
) -> tuple[Limit | None, tuple[Kind, ...]]:
    """The first limit that is failed, and the kinds of change that mend all that are."""
    first: Limit | None = None
    kinds: tuple[Kind, ...] = ()
    ask = request.ask
    for row in rows:
        if row.met(ask, shelf):
            continue
        if first is None:
            first, kinds = row.limit, KINDS_MENDING[row.limit]
        else:
            kinds = tuple(kind for kind in kinds if row.limit in kind.mends)
        if not kinds:
            break
    if kept_free:
        return first or Limit.BUSY, ()
    return first, kinds


def _options(request: Request, shelf: Shelf, kinds: Sequence[Kind]) -> list[_Option]:
    priced = [(kind, kind.price_ppm(request, shelf)) for kind in kinds]
    return [
        (ppm, shelf.price, shelf.host_id, shelf.model, kind, shelf) for kind, ppm in priced if ppm is not None
    ]


def _counts(index: Index, furthest: dict[str, Limit | None]) -> list[tuple[Limit, int]]:
    by_limit = dict.fromkeys(Limit, 0)
    for limit in furthest.values():
        if limit is not None:
            by_limit[limit] += 1
    by_limit[Limit.AWAY] = index.away_count
    by_limit[Limit.MODEL] = len(index) - index.away_count - len(furthest)
    return [(limit, count) for limit, count in by_limit.items() if count]


def _told(request: Request, index: Index, limit: Limit, count: int, shelves: list[Shelf]) -> LimitCount:
    row = ROWS[limit]
    remedy = ""
    if limit is Limit.MODEL:
        remedy = "another GPU model" if index.models_matching("") and request.ask.model else ""
    elif shelves:
        remedy = row.remedy(request, shelves)
    return LimitCount(limit=row.words(request), host_count=count, remedy=remedy)


def _cheapest(request: Request, index: Index, options: list[_Option]) -> Change | None:
    """The first that really would place the job, of all in the order of their price."""
    if request.ask.model:
        other = index.best(request.ask._replace(model=""), Policy.CHEAPEST)
        if other is not None:
            options += _options(request, other, [MODEL_KIND])
    for ppm, _, _, _, kind, shelf in heapq.nsmallest(_TRIED_MAX, options, key=lambda option: option[:4]):
        spec = kind.changed(request, shelf)
        more_micro = spec.budget_micro - request.spec.budget_micro
        changed = replace(request, spec=spec, budget_left_micro=request.budget_left_micro + more_micro)
        if first_missed(rows_asked(changed.ask), changed.ask, shelf) is None:
            return Change(spec=spec, words=kind.words(request.spec, spec), price_ppm=ppm)
    return None
