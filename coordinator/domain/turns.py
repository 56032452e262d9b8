"""In what order waiting jobs are looked at: by priority, which grows; among equals, buyers in turn.

Jobs of one buyer with one priority form a lane, served in the order they were submitted. Waiting counts from
the moment the lane was last served, so a buyer whose backlog moves does not grow in priority over others,
while a lane that stands still, and a job that was passed over in its lane, do until they are served. So
nothing starves: whatever waits is ahead, after some time, of all that is submitted later.
"""

import heapq
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from coordinator.domain.job import Job
from coordinator.domain.shelf import Request

# So much waiting is worth one point of priority.
POINT_MS = 60_000

# Account and priority.
Lane = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Served:
    """When a lane was last served, and the last of its jobs, in their order, that has been."""

    at_ms: int
    through: tuple[int, str]


class Turns:
    """The queue in its order. The order of what is still to come heeds what was given meanwhile."""

    def __init__(
        self,
        waiting: Sequence[tuple[Job, Request]],
        held: Mapping[str, int],
        served: Mapping[Lane, Served],
        now_ms: int,
    ) -> None:
        # GPUs by account: what it held before, and what it is given on the way.
        self._share = dict(held)
        self._levels: dict[int, dict[str, list[tuple[int, str, Job, Request]]]] = {}
        for job, request in waiting:
            level = effective_priority(job, served.get(lane_of(job)), now_ms)
            of_level = self._levels.setdefault(level, {})
            of_level.setdefault(job.account_id, []).append((job.submitted_ms, job.id, job, request))

    def given(self, account_id: str, gpu_count: int) -> None:
        self._share[account_id] = self._share.get(account_id, 0) + gpu_count

    def __iter__(self) -> Iterator[tuple[Job, Request]]:
        for level in sorted(self._levels, reverse=True):
            lines = {account: deque(sorted(jobs)) for account, jobs in self._levels[level].items()}
            heads = [self._head(account, line) for account, line in lines.items()]
            heapq.heapify(heads)
            while heads:
                account = heapq.heappop(heads)[3]
                line = lines[account]
                _, _, job, request = line.popleft()
                yield job, request
                if line:
                    heapq.heappush(heads, self._head(account, line))

    def _head(self, account: str, line: deque[tuple[int, str, Job, Request]]) -> tuple[int, int, str, str]:
        submitted_ms, job_id, _, _ = line[0]
        return self._share.get(account, 0), submitted_ms, job_id, account


def lane_of(job: Job) -> Lane:
    return job.account_id, job.spec.priority


def effective_priority(job: Job, served: Served | None, now_ms: int) -> int:
    since_ms = job.queued_ms
    if served is not None and (job.submitted_ms, job.id) > served.through:
        since_ms = max(since_ms, served.at_ms)
    return job.spec.priority + max(0, now_ms - since_ms) // POINT_MS


def after_serving(served: Mapping[Lane, Served], jobs: Sequence[Job], now_ms: int) -> dict[Lane, Served]:
    """What is known of lanes when these jobs have a host. If it is lost, lanes age a little more."""
    through: dict[Lane, tuple[int, str]] = {}
    for job in jobs:
        lane, place = (job.account_id, job.spec.priority), (job.submitted_ms, job.id)
        before = through.get(lane)
        if before is None or place > before:
            through[lane] = place
    after = dict(served)
    for lane, place in through.items():
        known = served.get(lane)
        after[lane] = Served(at_ms=now_ms, through=max(place, known.through) if known else place)
    return after


def queue_places(
    waiting: Sequence[tuple[Job, Request]],
    held: Mapping[str, int],
    served: Mapping[Lane, Served],
    now_ms: int,
) -> dict[str, int]:
    """Each job's place in the queue, from 1, as if each got what it asks for in its turn."""
    turns = Turns(waiting, held, served, now_ms)
    places: dict[str, int] = {}
    for job, request in turns:
        places[job.id] = len(places) + 1
        turns.given(job.account_id, request.spec.gpus.count)
    return places
