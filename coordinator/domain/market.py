"""The market kept in memory for a coordinator's life: hosts, who holds what of them, and who waits.

It is told what changes and decides at once; told the same twice, it changes nothing more. Nothing is in it
that the database does not have, so any part may be forgotten and told anew.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.domain.host import HostRoom
from coordinator.domain.index import Index
from coordinator.domain.job import Attempt, Job
from coordinator.domain.matching import ANY, Placement, run_pass, share_of
from coordinator.domain.shelf import Request, Share
from coordinator.domain.turns import Lane, LineKey, Lines, Served, Turns, after_serving

# A buyer's different orders that are looked at in one pass. With more of them each has its turn later.
LINES_A_BUYER_MAX = 256
# Lines that can't be placed that are looked at when something has come free: about 10 ms. The whole pass,
# once a second, looks at the others.
LOOKS_AT_ONCE_MAX = 1_000


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What a live attempt holds, and for whom."""

    share: Share
    account_id: str


@dataclass(frozen=True, kw_only=True)
class Decided:
    """`broken` are jobs that could not be looked at, and why: a mistake of ours, or a row nobody foresaw."""

    placements: list[Placement]
    broken: list[tuple[str, Exception]]


class Market:
    """Not to be shared between threads."""

    def __init__(self) -> None:
        self.index = Index()
        self.lines = Lines()
        self.holdings: dict[str, Holding] = {}
        # Sorted, so that a look at some of them does not cost a look at all.
        self._host_ids: list[str] = []
        self._on_host: dict[str, set[str]] = {}
        self._held: Counter[str] = Counter()
        self._served: dict[Lane, Served] = {}
        # What may make a difference to who waits: lines with somebody new; whether anything came free.
        self._fresh: dict[LineKey, None] = {}
        self._freed = False

    # Hosts

    def put_host(self, room: HostRoom, holdings: Mapping[str, Holding]) -> None:
        """The host as it is now, new or known, and all that is held of it."""
        host_id = room.host.id
        for attempt_id in self._on_host.get(host_id, set()) - holdings.keys():
            self._forget(attempt_id)
        for attempt_id, holding in holdings.items():
            if attempt_id not in self.holdings:
                self._note(attempt_id, holding)
        place = bisect_left(self._host_ids, host_id)
        if self._host_ids[place : place + 1] != [host_id]:
            self._host_ids.insert(place, host_id)
        self.index.put(room)
        self._freed = True

    def remove_host(self, host_id: str) -> None:
        for attempt_id in list(self._on_host.get(host_id, ())):
            self._forget(attempt_id)
        place = bisect_left(self._host_ids, host_id)
        if self._host_ids[place : place + 1] == [host_id]:
            del self._host_ids[place]
        self.index.remove(host_id)

    def rate_host(self, host_id: str, reliability_ppm: int) -> None:
        self.index.rate(host_id, reliability_ppm)
        self._freed = True

    def hosts_between(self, after: str, last: str) -> list[str]:
        """Of those that are known: ids above `after`, up to `last` ("": all)."""
        end = bisect_right(self._host_ids, last) if last else None
        return self._host_ids[bisect_right(self._host_ids, after) : end]

    # What is held of them

    def take(self, attempt: Attempt, job: Job) -> None:
        """The attempt has its share."""
        if attempt.id not in self.holdings:
            holding = holding_of(attempt, job)
            self._note(attempt.id, holding)
            self.index.take(holding.share)

    def assigned(self, attempt_id: str, holding: Holding) -> None:
        """What was decided here, under the name that it has from now on."""
        self._note(attempt_id, holding)

    def release(self, attempt_id: str) -> None:
        """The attempt is over."""
        holding = self._forget(attempt_id)
        if holding is not None:
            self.index.release(holding.share)
            self._freed = True

    def _note(self, attempt_id: str, holding: Holding) -> None:
        self.holdings[attempt_id] = holding
        self._on_host.setdefault(holding.share.host_id, set()).add(attempt_id)
        self._held[holding.account_id] += len(holding.share.gpus)

    def _forget(self, attempt_id: str) -> Holding | None:
        holding = self.holdings.pop(attempt_id, None)
        if holding is None:
            return None
        on_host = self._on_host[holding.share.host_id]
        on_host.discard(attempt_id)
        if not on_host:
            del self._on_host[holding.share.host_id]
        self._held[holding.account_id] -= len(holding.share.gpus)
        if not self._held[holding.account_id]:
            del self._held[holding.account_id]
        return holding

    # Who waits

    def wait(self, job: Job, request: Request) -> None:
        key = self.lines.put(job, request)
        if key is not None:
            self._fresh[key] = None

    def leave(self, job_id: str) -> None:
        self.lines.remove(job_id)

    def waiting_between(self, after: str, last: str) -> list[str]:
        """As `hosts_between`."""
        return [job_id for job_id in self.lines if after < job_id and (not last or job_id <= last)]

    def expired(self, now_ms: int) -> list[str]:
        """Who would not wait any longer."""
        return [job_id for job_id, expires_ms in self.lines.expiring.items() if expires_ms <= now_ms]

    # Decisions

    @property
    def is_stirred(self) -> bool:
        """Something happened that may make a difference."""
        return bool(self._fresh) or (self._freed and len(self.lines) > 0)

    def match(self, now_ms: int, *, whole: bool = False, most: int = ANY) -> Decided:
        """Give hosts to whom they fit: `whole`, to all who wait, else to whom what happened may help; to no
        more than `most`.

        Who is given one waits no more, and its share is taken.
        """
        lines, everybody = self.lines, whole or self._freed
        chosen = lines.some(LINES_A_BUYER_MAX) if everybody else lines.named(self._fresh)
        self._fresh.clear()
        self._freed = False
        turns = Turns(chosen, self._held, self._served, now_ms)
        broken: list[tuple[str, Exception]] = []
        looks_max = ANY if whole else LOOKS_AT_ONCE_MAX
        placements = run_pass(
            turns, self.index, now_ms, broken, whole_queue=whole, looks_max=looks_max, most=most
        )
        for placement in placements:
            key, waiter = self.lines.place(placement.job_id)
            self._served[key.lane] = after_serving(self._served.get(key.lane), waiter, now_ms)
            self.lines.remove(placement.job_id)
        if whole:
            lanes = self.lines.lanes()
            self._served = {lane: served for lane, served in self._served.items() if lane in lanes}
        return Decided(placements=placements, broken=broken)


def holding_of(attempt: Attempt, job: Job) -> Holding:
    return Holding(share=share_of(job.spec, attempt.host_id, attempt.gpus), account_id=job.account_id)
