"""Keeps the market in memory true to the database, and gives hosts to jobs as soon as either comes free.

All of it runs on the writer's thread. `settle` is done at the end of every transaction, within it: what was
submitted, freed or lost in it is heard, and who can be helped by that gets a host in the same commit. `look`
is done now and then: it reads a part of the database anew, so that nothing wrong lasts, and looks at all who
wait. What was decided in a transaction that was not committed is read anew before anything is decided again.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.domain.claim import GpuOwner
from coordinator.domain.host import Host, HostRoom
from coordinator.domain.job import Job
from coordinator.domain.market import Holding, Market, holding_of
from coordinator.domain.matching import ANY, Placement
from coordinator.domain.metering import Stamp
from coordinator.domain.states import AttemptState, JobState
from coordinator.services import schedule
from coordinator.services.aside import Aside
from coordinator.services.jobs import request_of
from coordinator.store.ports import BROKEN, News, Transaction, Writing

_LOG = logging.getLogger(__name__)
# What is read anew in one look: some 10 ms of each second.
HOSTS_A_LOOK = 100
JOBS_A_LOOK = 500


@dataclass(kw_only=True)
class _Names:
    """What may not be in memory as it is in the database."""

    hosts: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)

    def add(self, news: News) -> None:
        self.hosts |= news.hosts
        self.hosts |= {after.host_id for _, after in news.attempts}
        self.jobs |= {after.id for _, after in news.jobs}

    def copy(self) -> "_Names":
        return _Names(hosts=set(self.hosts), jobs=set(self.jobs))

    def clear(self) -> None:
        self.hosts.clear()
        self.jobs.clear()


class Dispatcher:
    """`on_aside` is told "job" or "host" whenever one is set aside."""

    def __init__(
        self, now: Callable[[], Stamp], fee_ppm: int, window_ms: int, on_aside: Callable[[str], None]
    ) -> None:
        self.market = Market()
        self._now = now
        self._fee_ppm = fee_ppm
        self._window_ms = window_ms
        self._doubt = _Names()
        self._aside = Aside(on_aside)
        # How far the database has been read anew, and whether it was once as a whole.
        self._host_read, self._job_read = "", ""
        self._unread = {"hosts", "jobs"}
        # How many are given a host in one look. After something went wrong few, until it is known what.
        self._most = self._most_next = ANY
        self._tried: Sequence[Placement] = ()
        # The transaction of a look that is not known to be committed, and the last that was settled.
        self._look: Transaction | None = None
        self._is_looked = False
        self._settled: Transaction | None = None
        self._in_step = False

    @property
    def is_ready(self) -> bool:
        """Everything was read once; before, nobody is given what another may have waited for."""
        return not self._unread

    @property
    def looks_again(self) -> bool:
        """The next look should come at once."""
        return self._is_careful or not self.is_ready

    @property
    def _is_careful(self) -> bool:
        return self._most != ANY

    # What the writer tells

    def settle(self, tx: Writing) -> None:
        news, self._settled, self._in_step = tx.news(), tx, False
        late = self._doubt.copy()
        self._doubt.add(news)
        if self._is_careful:
            return
        try:
            self._recall(tx, late)
            self._hear(tx, news)
            if self.is_ready and self.market.is_stirred:
                self._assign(tx)
        except Exception:
            self._most = self._most_next = 1
            raise
        self._in_step = True

    def committed(self) -> None:
        """What the last `settle` was part of."""
        if self._in_step:
            self._doubt.clear()
        if self._look is not None and self._look is self._settled:
            self._look, self._most = None, self._most_next

    def undone(self, tx: Writing) -> None:
        """Rolled back for what another write said. A look that had come to its end is not to blame."""
        if self._look is tx and self._is_looked:
            self._look = None

    def missed(self, tx: Writing) -> None:
        """Committed without us, because with us it could not be."""
        if self._look is tx:
            self._look = None
        self._most = self._most_next = 1
        self._doubt.add(tx.news())

    # Now and then

    def look(self, tx: Transaction) -> None:
        """A write like any other, and the safety net of all: call it again and again."""
        now = self._now()
        self._learn_from_failure(now.wall_ms)
        self._look, self._tried, self._is_looked = tx, (), False
        self._look_around(tx, now)
        self._is_looked = True

    def _look_around(self, tx: Transaction, now: Stamp) -> None:
        self._recall(tx, self._doubt.copy())
        self._read_hosts(tx, now.wall_ms)
        self._read_jobs(tx, now.wall_ms)
        if not self.is_ready:
            return
        expired = self.market.expired(now.wall_ms)
        self._doubt.jobs.update(expired)
        schedule.expire(tx, expired, now)
        for job_id in expired:
            self.market.leave(job_id)
        count = self._assign(tx, whole=True, most=self._most)
        if self._is_careful:
            self._most_next = ANY if count < self._most else 2 * self._most

    def _learn_from_failure(self, now_ms: int) -> None:
        """Was the look before this committed?"""
        if self._look is None:
            return
        if self._most == 1:
            for placement in self._tried:
                self._aside.put("job", placement.job_id, "its assignment could not be written", now_ms)
                self.market.leave(placement.job_id)
        else:
            _LOG.error("a look at the queue failed; jobs are given hosts one by one until it is known why")
        self._most = self._most_next = 1

    # The parts

    def _assign(self, tx: Transaction, *, whole: bool = False, most: int = ANY) -> int:
        now = self._now()
        decided = self.market.match(now.wall_ms, whole=whole, most=most)
        for job_id, error in decided.broken:
            self._aside.put("job", job_id, repr(error), now.wall_ms)
            self.market.leave(job_id)
        self._tried = decided.placements
        if not decided.placements:
            return 0
        self._doubt.hosts.update(placement.host.id for placement in decided.placements)
        self._doubt.jobs.update(placement.job_id for placement in decided.placements)
        made = schedule.assign(tx, decided.placements, self._fee_ppm, self._window_ms, now)
        for job, attempt in made.values():
            self.market.assigned(attempt.id, holding_of(attempt, job))
        wrong = [placement for placement in decided.placements if placement.job_id not in made]
        if wrong:
            _LOG.warning("%d jobs or GPUs were not as they were known; they are read anew", len(wrong))
            hosts = {placement.host.id for placement in wrong}
            self._recall(tx, _Names(hosts=hosts, jobs={placement.job_id for placement in wrong}))
        return len(decided.placements)

    def _hear(self, tx: Transaction, news: News) -> None:
        jobs = {after.id: after for _, after in news.jobs}
        self._queue(tx, jobs.values())
        for _, attempt in news.attempts:
            if attempt.state is AttemptState.ENDED:
                self.market.release(attempt.id)
        begun = [
            attempt
            for before, attempt in news.attempts
            if before is None
            and attempt.state is not AttemptState.ENDED
            and attempt.id not in self.market.holdings
        ]
        if begun:
            of_begun = tx.jobs(sorted({attempt.job_id for attempt in begun}))
            for attempt in begun:
                self.market.take(attempt, of_begun[attempt.job_id])
        for host_id, ppm in news.reliability_ppm.items():
            self.market.rate_host(host_id, ppm)
        if news.hosts:
            self._recall(tx, _Names(hosts=set(news.hosts)))

    def _queue(self, tx: Transaction, jobs: Iterable[Job]) -> None:
        """Who waits waits here too; who no longer does has left."""
        waiting, now_ms = list[Job](), self._now().wall_ms
        for job in jobs:
            if job.state is JobState.QUEUED and not self._aside.has(job.id, now_ms):
                waiting.append(job)
            else:
                self.market.leave(job.id)
        tried = [job.id for job in waiting if job.retries_used]
        attempts = tx.attempts_of_jobs(tried) if tried else {}
        for job in waiting:
            self.market.wait(job, request_of(job, attempts.get(job.id, ())))

    def _recall(self, tx: Transaction, names: _Names) -> None:
        """Read anew what these are."""
        if names.jobs:
            found = tx.jobs(sorted(names.jobs))
            for job_id in names.jobs - found.keys():
                self.market.leave(job_id)
            self._queue(tx, found.values())
        if names.hosts:
            now_ms = self._now().wall_ms
            hosts = tx.hosts(sorted(name for name in names.hosts if not self._aside.has(name, now_ms)))
            self._put_hosts(tx, list(hosts.values()))

    def _read_hosts(self, tx: Transaction, now_ms: int) -> None:
        page = tx.hosts_after(self._host_read, HOSTS_A_LOOK)
        for host_id, why in page.broken.items():
            self._aside.put("host", host_id, why, now_ms)
        there = {host.id for host in page.rows}
        for host_id in self.market.hosts_between(self._host_read, page.last):
            if host_id not in there:
                self.market.remove_host(host_id)
        self._put_hosts(tx, [host for host in page.rows if not self._aside.has(host.id, now_ms)])
        self._host_read = page.last
        if not page.last:
            self._unread.discard("hosts")

    def _read_jobs(self, tx: Transaction, now_ms: int) -> None:
        page = tx.queue_after(self._job_read, JOBS_A_LOOK)
        for job_id, why in page.broken.items():
            self._aside.put("job", job_id, why, now_ms)
        there = {job.id for job in page.rows}
        for job_id in self.market.waiting_between(self._job_read, page.last):
            if job_id not in there:
                self.market.leave(job_id)
        self._queue(tx, page.rows)
        self._job_read = page.last
        if not page.last:
            self._unread.discard("jobs")

    def _put_hosts(self, tx: Transaction, hosts: Sequence[Host]) -> None:
        try:
            self._put_hosts_together(tx, hosts)
        except BROKEN:
            for host in hosts:
                self._put_host_alone(tx, host)

    def _put_host_alone(self, tx: Transaction, host: Host) -> None:
        try:
            self._put_hosts_together(tx, [host])
        except BROKEN as error:
            self._aside.put("host", host.id, repr(error), self._now().wall_ms)
            self.market.remove_host(host.id)

    def _put_hosts_together(self, tx: Transaction, hosts: Sequence[Host]) -> None:
        if not hosts:
            return
        known = tx.attempts_on_hosts([host.id for host in hosts])
        live = {
            host_id: [attempt for attempt in of if attempt.state is not AttemptState.ENDED]
            for host_id, of in known.items()
        }
        jobs = tx.jobs(sorted({attempt.job_id for of in live.values() for attempt in of}))
        owners = tx.gpu_owners([gpu.uuid for host in hosts for gpu in host.facts.gpus_fit])
        for host in hosts:
            holdings = {a.id: holding_of(a, jobs[a.job_id]) for a in live.get(host.id, ())}
            self.market.put_host(_room(host, owners, holdings), holdings)


def _room(host: Host, owners: Mapping[str, GpuOwner], holdings: dict[str, Holding]) -> HostRoom:
    """A GPU is sold by the host that it belongs to, whoever else names it."""

    def is_free(uuid: str) -> bool:
        owner = owners.get(uuid)
        return owner is not None and owner.host_id == host.id and not owner.in_use

    return HostRoom(
        host=host,
        free=tuple(gpu for gpu in host.facts.gpus_fit if is_free(gpu.uuid)),
        memory_bytes_taken=sum(holding.share.memory_bytes for holding in holdings.values()),
        cpu_milli_taken=sum(holding.share.cpu_milli for holding in holdings.values()),
    )
