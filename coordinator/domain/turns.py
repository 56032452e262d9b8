"""In what order waiting jobs are looked at: by priority, which grows; among equals, buyers in turn.

Jobs of one buyer with one priority form a lane, served in the order they were submitted. Waiting counts from
the moment the lane was last served, so a buyer whose backlog moves does not grow in priority over others,
while a lane that stands still, and a job that was passed over in its lane, do until they are served. So
nothing starves: whatever waits is ahead, after some time, of all that is submitted later.

What of a lane asks for the same is a line: when its first can't be placed none of it can, however many they
are. So a queue is looked at line by line, and its length does not matter.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coordinator.domain.job import Job, Policy
from coordinator.domain.shelf import Ask, Request

# So much waiting is worth one point of priority.
POINT_MS = 60_000

# Account and priority.
Lane = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Served:
    """When a lane was last served, and the last of its jobs, in their order, that has been."""

    at_ms: int
    through: tuple[int, str]


class Waiter(NamedTuple):
    """A waiting job, in the order of its line; little is kept of it, for they may be many."""

    queued_ms: int
    submitted_ms: int
    id: str
    # From then on it would rather not; 0 if it waits for ever.
    expires_ms: int


class LineKey(NamedTuple):
    """What the jobs of a line have in common. Those that lost a host queue anew: apart, so that each line is
    in its order."""

    account_id: str
    priority: int
    again: bool
    policy: Policy
    ask: Ask

    @property
    def lane(self) -> Lane:
        return self.account_id, self.priority


@dataclass(kw_only=True, eq=False)
class Line:
    key: LineKey
    jobs: list[Waiter] = field(default_factory=list)


class Lines:
    """All jobs that wait."""

    def __init__(self, waiting: Iterable[tuple[Job, Request]] = ()) -> None:
        self._lines: dict[LineKey, Line] = {}
        self._of_account: dict[str, dict[LineKey, None]] = {}
        self._places: dict[str, tuple[LineKey, Waiter]] = {}
        # Who would not wait for ever.
        self.expiring: dict[str, int] = {}
        for job, request in waiting:
            self.put(job, request)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def put(self, job: Job, request: Request) -> LineKey | None:
        """It waits; if it did already, as it is now. The line that it is new in, None: it was there."""
        spec = job.spec
        key = LineKey(job.account_id, spec.priority, job.retries_used > 0, request.spec.policy, request.ask)
        expires_ms = job.queued_ms + spec.queue_ms_max if spec.queue_ms_max else 0
        waiter = Waiter(job.queued_ms, job.submitted_ms, job.id, expires_ms)
        if self._places.get(job.id) == (key, waiter):
            return None
        self.remove(job.id)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(key=key)
            self._of_account.setdefault(key.account_id, {})[key] = None
        # The line's own, so that one ask is kept for all of them.
        self._places[job.id] = line.key, waiter
        insort(line.jobs, waiter)
        if expires_ms:
            self.expiring[job.id] = expires_ms
        return line.key

    def remove(self, job_id: str) -> None:
        place = self._places.pop(job_id, None)
        if place is None:
            return
        key, waiter = place
        self.expiring.pop(job_id, None)
        jobs = self._lines[key].jobs
        del jobs[bisect_left(jobs, waiter)]
        if not jobs:
            del self._lines[key]
            of_account = self._of_account[key.account_id]
            del of_account[key]
            if not of_account:
                del self._of_account[key.account_id]

    def place(self, job_id: str) -> tuple[LineKey, Waiter]:
        return self._places[job_id]

    def lanes(self) -> set[Lane]:
        return {key.lane for key in self._lines}

    def some(self, most: int) -> list[Line]:
        """So many lines of each buyer, others each time: who asks for a thousand different things makes
        nobody wait but themselves."""
        found: list[Line] = []
        for keys in self._of_account.values():
            chosen = list(keys)[:most]
            found += [self._lines[key] for key in chosen]
            if len(chosen) < len(keys):
                for key in chosen:
                    del keys[key]
                    keys[key] = None
        return found

    def named(self, keys: Iterable[LineKey]) -> list[Line]:
        return [self._lines[key] for key in keys if key in self._lines]

    def all(self) -> list[Line]:
        return list(self._lines.values())


# When the first of a line was submitted, its id, and which line.
_Head = tuple[int, str, int]


class Turns:
    """Lines in the order in which they are looked at, job by job. It heeds what was given meanwhile."""

    def __init__(
        self, lines: Sequence[Line], held: Mapping[str, int], served: Mapping[Lane, Served], now_ms: int
    ) -> None:
        self._lines = lines
        # GPUs by account: what it held before, and what it is given on the way.
        self._share = dict(held)
        self._served = served
        self._now_ms = now_ms
        self._passed_over = False

    def given(self, account_id: str, gpu_count: int) -> None:
        self._share[account_id] = self._share.get(account_id, 0) + gpu_count

    def pass_over(self) -> None:
        """None of the line that was looked at last can be placed now."""
        self._passed_over = True

    def __iter__(self) -> Iterator[tuple[LineKey, Waiter]]:
        # By level and buyer, the heads of lines. A line that goes on stays in its level or sinks lower.
        levels: dict[int, dict[str, list[_Head]]] = {}
        places = [0] * len(self._lines)
        for number in range(len(self._lines)):
            self._enter(levels, number, 0)
        while levels:
            level = max(levels)
            buyers = levels[level]
            turns = [self._turn(account, heads) for account, heads in buyers.items()]
            heapq.heapify(turns)
            while turns:
                account = heapq.heappop(turns)[3]
                number = heapq.heappop(buyers[account])[2]
                line = self._lines[number]
                self._passed_over = False
                yield line.key, line.jobs[places[number]]
                places[number] += 1
                if not self._passed_over and places[number] < len(line.jobs):
                    self._enter(levels, number, places[number])
                if buyers[account]:
                    heapq.heappush(turns, self._turn(account, buyers[account]))
            del levels[level]

    def _enter(self, levels: dict[int, dict[str, list[_Head]]], number: int, place: int) -> None:
        key, waiter = self._lines[number].key, self._lines[number].jobs[place]
        level = effective_priority(key, waiter, self._served.get(key.lane), self._now_ms)
        heads = levels.setdefault(level, {}).setdefault(key.account_id, [])
        heapq.heappush(heads, (waiter.submitted_ms, waiter.id, number))

    def _turn(self, account: str, heads: list[_Head]) -> tuple[int, int, str, str]:
        submitted_ms, job_id, _ = heads[0]
        return self._share.get(account, 0), submitted_ms, job_id, account


def effective_priority(key: LineKey, waiter: Waiter, served: Served | None, now_ms: int) -> int:
    since_ms = waiter.queued_ms
    if served is not None and (waiter.submitted_ms, waiter.id) > served.through:
        since_ms = max(since_ms, served.at_ms)
    return key.priority + max(0, now_ms - since_ms) // POINT_MS


def after_serving(before: Served | None, waiter: Waiter, now_ms: int) -> Served:
    """What is known of a lane when this job of it has a host. If it is lost, the lane ages a little more."""
    place = waiter.submitted_ms, waiter.id
    return Served(at_ms=now_ms, through=max(place, before.through) if before else place)


def queue_places(
    waiting: Sequence[tuple[Job, Request]],
    held: Mapping[str, int],
    served: Mapping[Lane, Served],
    now_ms: int,
) -> dict[str, int]:
    """Each job's place in the queue, from 1, as if each got what it asks for in its turn."""
    turns = Turns(Lines(waiting).all(), held, served, now_ms)
    places: dict[str, int] = {}
    for key, waiter in turns:
        places[waiter.id] = len(places) + 1
        turns.given(key.account_id, key.ask.gpu_count)
    return places
