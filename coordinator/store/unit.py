"""A transaction that holds back what it is told to save, and writes all of it together.

Services go on to treat jobs and attempts one by one, and what many of them do becomes a statement for each
kind of row. What was read or saved by its id is answered from memory; whatever else is asked goes through
`connection`, which first writes what is held back. So nothing stale is read, and nothing is forgotten.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import Connection

from coordinator.domain.act import Act
from coordinator.domain.event import NewEvent
from coordinator.domain.host import Hold, Host, HostFacts, HostState, Terms
from coordinator.domain.job import Attempt, Job, LogChunk
from coordinator.domain.metering import Stamp
from coordinator.domain.states import AttemptState, JobState
from coordinator.domain.values import changed
from coordinator.store.codec import attempt_guard, is_unreleased
from coordinator.store.kept import Kept
from coordinator.store.ports import Held, News, Rings
from coordinator.store.transaction import SqlTransaction
from ledger.entries import Transfer

T = TypeVar("T")


class HeldBackError(Exception):
    """What was held back could not be written; whose it was is not known."""


@dataclass(slots=True)
class _Row(Generic[T]):
    """As it was before this transaction and as the database has it now, None: not at all; as it is to be."""

    first: T | None
    stored: T | None
    now: T


class UnitTransaction(SqlTransaction):
    def __init__(self, connection: Connection, kept: Kept | None = None) -> None:
        super().__init__(connection)
        self._kept = Kept() if kept is None else kept
        self._stands_on_kept = False
        self._jobs: dict[str, _Row[Job]] = {}
        self._attempts: dict[str, _Row[Attempt]] = {}
        # By host and by job, where all of them are known.
        self._on_host: dict[str, dict[str, None]] = {}
        self._of_job: dict[str, dict[str, None]] = {}
        self._hosts: dict[str, Host] = {}
        self._hosts_moved: set[str] = set()
        self._rated: dict[str, int] = {}
        self._forget()

    def _forget(self) -> None:
        self._jobs_saved: dict[str, None] = {}
        self._attempts_saved: dict[str, None] = {}
        self._seen: dict[str, Stamp] = {}
        self._reliability_ppm: dict[str, int] = {}
        self._events: list[tuple[NewEvent, int]] = []
        self._answers: list[tuple[str, str, bytes, str]] = []
        self._remembered: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._acts: list[Act] = []
        self._transfers: list[Transfer] = []
        self._posted_ms = 0
        self._holds_back = False

    @property
    def connection(self) -> Connection:
        self.flush()
        return self._connection

    def flush(self) -> None:
        """What is held back is written."""
        if not self._holds_back:
            return
        # From here on `connection` is no more than the connection.
        self._holds_back = False
        try:
            self._write()
        except Exception as error:
            raise HeldBackError(str(error)) from error
        self._forget()

    def committed(self) -> None:
        """What it has read and written is so from now on. What it made is read once before it is kept."""
        self._kept.keep([row.now for row in self._attempts.values() if row.first is not None])

    def failed(self) -> bool:
        """What it had to do with is read anew, for the commit may have been done though it has failed.

        True: it stood on what was kept, and may have failed because that was out of date.
        """
        self._kept.forget(self._attempts)
        return self._stands_on_kept

    def news(self) -> News:
        """What has changed since the transaction began."""
        return News(
            jobs=[(row.first, row.now) for row in self._jobs.values() if row.first is not row.now],
            attempts=[(row.first, row.now) for row in self._attempts.values() if row.first is not row.now],
            hosts=self._hosts_moved,
            reliability_ppm=self._rated,
            transfers=self.moved,
            links=self.linked,
        )

    def rings(self) -> Rings:
        """Whom it has woken. What is in memory of what they would look at, they need not read."""
        moved: dict[str, list[_Row[Attempt]]] = {}
        for row in self._attempts.values():
            if row.first is not row.now:
                moved.setdefault(row.now.host_id, []).append(row)
        return {topic: self._held_since(topic, moved.get(topic, ())) for topic in self.topics}

    def _held_since(self, host_id: str, moved: Sequence[_Row[Attempt]]) -> Held | None:
        whole = host_id in self._on_host
        if not whole and not (moved and all(row.first is None for row in moved)):
            return None
        attempts = self._of_host(host_id) if whole else [row.now for row in moved]
        if not all(attempt.job_id in self._jobs for attempt in attempts):
            return None
        pairs = [(attempt, self._jobs[attempt.job_id].now) for attempt in attempts]
        # What is sealed is read by who opens it.
        if any(job.spec.is_confidential for _, job in pairs):
            return None
        return Held(attempts=pairs, whole=whole)

    def _write(self) -> None:
        jobs = [self._jobs[key] for key in self._jobs_saved]
        attempts = [self._attempts[key] for key in self._attempts_saved]
        super().insert_jobs([row.now for row in jobs if row.stored is None])
        saved = super().save_jobs([(row.stored, row.now) for row in jobs if row.stored is not None])
        saved &= super().save_attempts([(row.stored, row.now) for row in attempts if row.stored is not None])
        if not saved:
            raise HeldBackError("a row was changed by somebody else")
        super().write_attempts([row.now for row in attempts if row.stored is None])
        for job_row in jobs:
            job_row.stored = job_row.now
        for attempt_row in attempts:
            attempt_row.stored = attempt_row.now
        super().save_standings(self._seen, self._reliability_ppm)
        super().remember_all(self._answers)
        super().append_acts(self._acts)
        if self._events:
            super().append_all_events(self._events)
        if self._transfers:
            super().post_surely(self._transfers, self._posted_ms)

    # Jobs

    def insert_jobs(self, new: Sequence[Job]) -> None:
        for item in new:
            self._jobs[item.id] = _Row(None, None, item)
            self._jobs_saved[item.id] = None
            self._of_job[item.id] = {}
            self._holds_back = True

    def job(self, job_id: str) -> Job | None:
        return self.jobs([job_id]).get(job_id)

    def jobs(self, job_ids: Sequence[str]) -> dict[str, Job]:
        unknown = [job_id for job_id in job_ids if job_id not in self._jobs]
        if unknown:
            self._jobs |= {key: _Row(found, found, found) for key, found in super().jobs(unknown).items()}
        return {key: self._jobs[key].now for key in job_ids if key in self._jobs}

    def save_jobs(self, pairs: Sequence[tuple[Job, Job]]) -> bool:
        known = self.jobs([before.id for before, _ in pairs])
        if not all(before.id in known and _same_job(known[before.id], before) for before, _ in pairs):
            return False
        for _, after in pairs:
            self._jobs[after.id].now = after
            self._jobs_saved[after.id] = None
            self._holds_back = True
        return True

    def add_charges(self, amounts: Mapping[str, int]) -> dict[str, JobState]:
        found = super().add_charges(amounts)
        for job_id in found:
            row = self._jobs.get(job_id)
            if row is not None:
                row.stored = row.now = changed(row.now, charged_micro=row.now.charged_micro + amounts[job_id])
        return found

    # Attempts

    def insert_attempts(self, new: Sequence[Attempt]) -> Sequence[str]:
        taken = set(self.gpus_taken([gpu.uuid for item in new for gpu in item.gpus]))
        refused = []
        for item in new:
            uuids = {gpu.uuid for gpu in item.gpus}
            if uuids & taken:
                refused.append(item.id)
                continue
            taken |= uuids
            self._attempts[item.id] = _Row(None, None, item)
            self._attempts_saved[item.id] = None
            for of, key in ((self._on_host, item.host_id), (self._of_job, item.job_id)):
                if key in of:
                    of[key][item.id] = None
            self._holds_back = True
        return refused

    def gpus_taken(self, uuids: Sequence[str]) -> Mapping[str, str]:
        wanted = set(uuids)
        rows = [self._attempts[key] for key in self._attempts_saved]
        ended = {row.now.id for row in rows if row.now.state is AttemptState.ENDED}
        found = {uuid: owner for uuid, owner in super().gpus_taken(uuids).items() if owner not in ended}
        fresh = [row.now for row in rows if row.stored is None and row.now.id not in ended]
        return found | {gpu.uuid: item.id for item in fresh for gpu in item.gpus if gpu.uuid in wanted}

    def attempt(self, attempt_id: str) -> Attempt | None:
        return self.attempts([attempt_id]).get(attempt_id)

    def attempts(self, attempt_ids: Sequence[str]) -> dict[str, Attempt]:
        unknown = list[str]()
        for attempt_id in attempt_ids:
            if attempt_id not in self._attempts:
                found = self._kept.attempt(attempt_id)
                if found is None:
                    unknown.append(attempt_id)
                else:
                    self._attempts[attempt_id] = _Row(found, found, found)
                    self._stands_on_kept = True
        if unknown:
            self._learn(super().attempts(unknown).values())
        return {key: self._attempts[key].now for key in attempt_ids if key in self._attempts}

    def attempts_of_jobs(self, job_ids: Sequence[str]) -> dict[str, list[Attempt]]:
        unknown = [job_id for job_id in job_ids if job_id not in self._of_job]
        if unknown:
            for job_id, found in super().attempts_of_jobs(unknown).items():
                self._learn(found)
                self._of_job[job_id] = dict.fromkeys(item.id for item in found)
            self._add_fresh()
        return {
            job_id: sorted((self._attempts[key].now for key in self._of_job[job_id]), key=_epoch)
            for job_id in job_ids
        }

    def attempts_on_host(self, host_id: str) -> Sequence[Attempt]:
        return self.attempts_on_hosts([host_id]).get(host_id, [])

    def attempts_on_hosts(self, host_ids: Sequence[str]) -> dict[str, list[Attempt]]:
        unknown = [host_id for host_id in host_ids if host_id not in self._on_host]
        if unknown:
            found = super().attempts_on_hosts(unknown)
            for host_id in unknown:
                self._learn(found.get(host_id, ()))
                self._on_host[host_id] = dict.fromkeys(item.id for item in found.get(host_id, ()))
            self._add_fresh()
        held = {host_id: self._of_host(host_id) for host_id in host_ids}
        return {host_id: attempts for host_id, attempts in held.items() if attempts}

    def _of_host(self, host_id: str) -> list[Attempt]:
        found = (self._attempts[key].now for key in sorted(self._on_host[host_id]))
        return [item for item in found if is_unreleased(item)]

    def _learn(self, found: Iterable[Attempt]) -> None:
        for item in found:
            self._attempts.setdefault(item.id, _Row(item, item, item))

    def _add_fresh(self) -> None:
        """Those that the database does not have yet."""
        for key in self._attempts_saved:
            item = self._attempts[key].now
            for of, group in ((self._on_host, item.host_id), (self._of_job, item.job_id)):
                if group in of:
                    of[group][key] = None

    def save_attempts(self, pairs: Sequence[tuple[Attempt, Attempt]]) -> bool:
        known = self.attempts([before.id for before, _ in pairs])
        if not all(before.id in known and _same_attempt(known[before.id], before) for before, _ in pairs):
            return False
        for _, after in pairs:
            self._attempts[after.id].now = after
            self._attempts_saved[after.id] = None
            self._holds_back = True
        return True

    def save_meters(self, pairs: Sequence[tuple[Attempt, Attempt]]) -> bool:
        saved = super().save_meters(pairs)
        for _, after in pairs if saved else ():
            row = self._attempts.get(after.id)
            if row is not None:
                row.stored = row.now = after
        return saved

    def append_log(self, attempt_id: str, chunks: Sequence[LogChunk], now_ms: int) -> None:
        row = self._attempts.get(attempt_id)
        if row is not None and row.stored is None:
            self.flush()
        super().append_log(attempt_id, chunks, now_ms)

    # Hosts

    def host(self, host_id: str) -> Host | None:
        return self.hosts([host_id]).get(host_id)

    def hosts(self, host_ids: Sequence[str]) -> dict[str, Host]:
        unknown = [host_id for host_id in host_ids if host_id not in self._hosts]
        if unknown:
            for host_id, found in super().hosts(unknown).items():
                ppm = self._reliability_ppm.get(host_id, found.reliability_ppm)
                self._hosts[host_id] = changed(found, reliability_ppm=ppm)
        return {host_id: self._hosts[host_id] for host_id in host_ids if host_id in self._hosts}

    def save_standings(self, seen: Mapping[str, Stamp], reliability_ppm: Mapping[str, int]) -> None:
        self._seen |= seen
        self._reliability_ppm |= reliability_ppm
        self._rated |= reliability_ppm
        for host_id, ppm in reliability_ppm.items():
            if host_id in self._hosts:
                self._hosts[host_id] = changed(self._hosts[host_id], reliability_ppm=ppm)
        self._holds_back = self._holds_back or bool(seen or reliability_ppm)

    def save_hello(self, host_id: str, facts: HostFacts, terms: Terms) -> Sequence[str]:
        self._move(host_id)
        return super().save_hello(host_id, facts, terms)

    def move_gpu(self, gpu_uuid: str, before_host_id: str, after_host_id: str) -> bool:
        self.flush()
        self._move(before_host_id)
        self._move(after_host_id)
        return super().move_gpu(gpu_uuid, before_host_id, after_host_id)

    def free_gpu(self, gpu_uuid: str) -> None:
        for owner in self.gpu_owners([gpu_uuid]).values():
            self._move(owner.host_id)
        super().free_gpu(gpu_uuid)

    def save_link(self, host_id: str, before: HostState, after: HostState, reason: str, now_ms: int) -> bool:
        self._move(host_id)
        return super().save_link(host_id, before, after, reason, now_ms)

    def save_hold(self, host_id: str, hold: Hold, reason: str, now_ms: int) -> None:
        self._move(host_id)
        super().save_hold(host_id, hold, reason, now_ms)

    def lift_quarantine(self, host_id: str, reason: str, now_ms: int) -> None:
        self._move(host_id)
        super().lift_quarantine(host_id, reason, now_ms)

    def revoke_host(self, host_id: str, now_ms: int) -> None:
        self._move(host_id)
        super().revoke_host(host_id, now_ms)

    def _move(self, host_id: str) -> None:
        self._hosts.pop(host_id, None)
        self._hosts_moved.add(host_id)

    # What is only written

    def append_all_events(self, new: Sequence[tuple[NewEvent, int]]) -> None:
        self._events += new
        self._holds_back = self._holds_back or bool(new)

    def recall_all(self, asked: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[bytes, str]]:
        return super().recall_all(asked) | {
            key: self._remembered[key] for key in asked if key in self._remembered
        }

    def remember_all(self, answers: Sequence[tuple[str, str, bytes, str]]) -> None:
        for account_id, request_id, fingerprint, answer in answers:
            self._remembered[account_id, request_id] = fingerprint, answer
        self._answers += answers
        self._holds_back = self._holds_back or bool(answers)

    def append_acts(self, acts: Sequence[Act]) -> None:
        self._acts += acts
        self._holds_back = self._holds_back or bool(acts)

    def post_surely(self, transfers: Sequence[Transfer], now_ms: int) -> None:
        self._transfers += transfers
        self._posted_ms = max(self._posted_ms, now_ms)
        self._holds_back = self._holds_back or bool(transfers)


def _same_job(now: Job, before: Job) -> bool:
    return (now.state, now.charged_micro) == (before.state, before.charged_micro)


def _same_attempt(now: Attempt, before: Attempt) -> bool:
    return attempt_guard(now) == attempt_guard(before)


def _epoch(attempt: Attempt) -> int:
    return attempt.epoch
