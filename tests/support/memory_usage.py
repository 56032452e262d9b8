"""Jobs, attempts, bills, output and events of the market in memory: the store's verbs in plain Python."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from coordinator.domain.credit import Credit
from coordinator.domain.event import Event, NewEvent, each
from coordinator.domain.host import HostState
from coordinator.domain.job import Attempt, Job, LogChunk, LogState
from coordinator.domain.metering import Line
from coordinator.domain.states import ATTEMPT_LIVE, JOB_LIVE, AttemptState, JobState
from coordinator.store.ports import NUMBER_MAX
from coordinator.store.ports_hosts import Page
from tests.support.memory_claims import MemoryClaims

_Lines = list[tuple[Line, str]]


class MemoryJobs(MemoryClaims):
    def __init__(self) -> None:
        super().__init__()
        self._jobs: dict[str, Job] = {}
        self._attempts: dict[str, Attempt] = {}
        self._sealed: dict[str, bytes] = {}

    def insert_sealed(self, boxes: Mapping[str, bytes]) -> None:
        assert not boxes.keys() & self._sealed.keys()
        self._sealed |= boxes

    def sealed(self, job_ids: Sequence[str]) -> Mapping[str, bytes]:
        return {id_: self._sealed[id_] for id_ in job_ids if id_ in self._sealed}

    def sealed_after(self, job_id: str, limit: int) -> Sequence[tuple[str, str, bytes]]:
        after = [id_ for id_ in sorted(self._sealed) if id_ > job_id][:limit]
        return [(id_, self._jobs[id_].account_id, self._sealed[id_]) for id_ in after]

    def reseal(self, job_id: str, box: bytes) -> None:
        if job_id in self._sealed:
            self._sealed[job_id] = box

    def insert_job(self, job: Job) -> None:
        assert job.id not in self._jobs, job
        self._jobs[job.id] = job

    def insert_jobs(self, new: Sequence[Job]) -> None:
        for job in new:
            self.insert_job(job)

    def job(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def jobs(self, job_ids: Sequence[str]) -> dict[str, Job]:
        return {id_: self._jobs[id_] for id_ in job_ids if id_ in self._jobs}

    def jobs_of(self, account_id: str, *, live_only: bool, before_id: str, limit: int) -> Sequence[Job]:
        found = (self._jobs[id_] for id_ in sorted(self._jobs, reverse=True))
        return [
            job
            for job in found
            if job.account_id == account_id
            and (not live_only or job.state in JOB_LIVE)
            and (not before_id or job.id < before_id)
        ][:limit]

    def queue(self, limit: int) -> Sequence[Job]:
        found = (self._jobs[id_] for id_ in sorted(self._jobs))
        return [job for job in found if job.state is JobState.QUEUED][:limit]

    def queue_after(self, job_id: str, limit: int) -> Page[Job]:
        found = [job for job in self.queue(len(self._jobs)) if job.id > job_id]
        more = len(found) > limit
        return Page(rows=found[:limit], broken={}, last=found[limit - 1].id if more else "")

    def save_job(self, before: Job, after: Job) -> bool:
        stored = self._jobs[before.id]
        if (stored.state, stored.charged_micro) != (before.state, before.charged_micro):
            return False
        self._jobs[before.id] = after
        if after.is_over:
            self._sealed.pop(after.id, None)
        return True

    def save_jobs(self, pairs: Sequence[tuple[Job, Job]]) -> bool:
        return all(self.save_job(before, after) for before, after in pairs)

    def add_charges(self, amounts: Mapping[str, int]) -> dict[str, JobState]:
        if any(self._jobs[job_id].state not in JOB_LIVE for job_id in amounts):
            return {}
        for job_id, micro in amounts.items():
            job = self._jobs[job_id]
            self._jobs[job_id] = replace(job, charged_micro=job.charged_micro + micro)
        return {job_id: self._jobs[job_id].state for job_id in amounts}

    def insert_attempts(self, new: Sequence[Attempt]) -> Sequence[str]:
        return [attempt.id for attempt in new if not self.insert_attempt(attempt)]

    def insert_attempt(self, attempt: Attempt) -> bool:
        wanted = {gpu.uuid for gpu in attempt.gpus}
        if any(wanted & {gpu.uuid for gpu in one.gpus} for one in self._find(ATTEMPT_LIVE)):
            return False
        self._attempts[attempt.id] = attempt
        return True

    def attempt(self, attempt_id: str) -> Attempt | None:
        return self._attempts.get(attempt_id)

    def attempts(self, attempt_ids: Sequence[str]) -> dict[str, Attempt]:
        return {id_: self._attempts[id_] for id_ in attempt_ids if id_ in self._attempts}

    def attempts_of_jobs(self, job_ids: Sequence[str]) -> dict[str, list[Attempt]]:
        return {
            job_id: sorted(
                (one for one in self._attempts.values() if one.job_id == job_id), key=lambda one: one.epoch
            )
            for job_id in job_ids
        }

    def attempts_on_host(self, host_id: str) -> Sequence[Attempt]:
        return [one for one in self._find(AttemptState) if one.host_id == host_id and not one.is_over]

    def attempts_on_hosts(self, host_ids: Sequence[str]) -> dict[str, Sequence[Attempt]]:
        return {host_id: found for host_id in host_ids if (found := self.attempts_on_host(host_id))}

    def held_by_buyers(self) -> dict[str, int]:
        held = Counter[str]()
        for one in self._find(ATTEMPT_LIVE):
            held[self._jobs[one.job_id].account_id] += len(one.gpus)
        return dict(held)

    def attempts_of_lost_hosts(self) -> Sequence[Attempt]:
        return [one for one in self._find(ATTEMPT_LIVE) if self._hosts[one.host_id].link is HostState.LOST]

    def live_attempts(self, after_id: str, limit: int) -> Sequence[Attempt]:
        return [one for one in self._find(ATTEMPT_LIVE) if one.id > after_id][:limit]

    def attempts_awaited(self, attempt_id: str, limit: int) -> Page[Attempt]:
        owing = {AttemptState.ASSIGNED, AttemptState.STOPPING}
        found = [
            one
            for _, one in sorted(self._attempts.items())
            if one.id > attempt_id
            and (
                one.log_state is LogState.OPEN
                if one.state is AttemptState.ENDED
                else one.state in owing or one.reported_end is not None
            )
        ]
        last = found[limit - 1].id if len(found) > limit else ""
        return Page(rows=found[:limit], broken={}, last=last)

    def _find(self, states: Iterable[AttemptState]) -> Sequence[Attempt]:
        wanted = set(states)
        return [self._attempts[id_] for id_ in sorted(self._attempts) if self._attempts[id_].state in wanted]

    def save_attempt(self, before: Attempt, after: Attempt) -> bool:
        if _guard(self._attempts[before.id]) != _guard(before):
            return False
        self._attempts[before.id] = after
        return True

    def save_attempts(self, pairs: Sequence[tuple[Attempt, Attempt]]) -> bool:
        return all(self.save_attempt(before, after) for before, after in pairs)

    def save_meters(self, pairs: Sequence[tuple[Attempt, Attempt]]) -> bool:
        return self.save_attempts(pairs)


def _guard(attempt: Attempt) -> tuple[object, ...]:
    return attempt.epoch, attempt.state, attempt.meter.usage_number, attempt.log_offset


class MemoryUsage(MemoryJobs):
    def __init__(self) -> None:
        super().__init__()
        self._lines: dict[str, _Lines] = {}
        self._credits: dict[str, list[tuple[Credit, str, str]]] = {}
        self._output: dict[str, list[tuple[LogChunk, int]]] = {}
        self._events: list[Event] = []

    def insert_lines(self, attempt_id: str, lines: Sequence[tuple[Line, str]]) -> None:
        self._lines.setdefault(attempt_id, []).extend(lines)

    def insert_all_lines(self, lines: Sequence[tuple[str, Line, str]]) -> None:
        for attempt_id, line, transfer_id in lines:
            self.insert_lines(attempt_id, [(line, transfer_id)])

    def lines_after(
        self, job_id: str, epoch: int, number: int, limit: int
    ) -> Sequence[tuple[str, Line, str]]:
        return [
            (attempt.id, line, transfer_id)
            for attempt in self.attempts_of_jobs([job_id])[job_id]
            for line, transfer_id in self._lines.get(attempt.id, ())
            if (attempt.epoch, line.record.number) > (epoch, number)
        ][:limit]

    def lines_of(
        self, attempt_ids: Sequence[str], number_min: int = 0, number_max: int = NUMBER_MAX
    ) -> dict[str, _Lines]:
        return {
            id_: [
                line for line in self._lines.get(id_, ()) if number_min <= line[0].record.number <= number_max
            ]
            for id_ in attempt_ids
        }

    def insert_credit(self, attempt_id: str, credit: Credit, transfer_id: str, reason: str) -> None:
        self._credits.setdefault(attempt_id, []).append((credit, transfer_id, reason))

    def credits_of(self, attempt_ids: Sequence[str]) -> dict[str, list[tuple[Credit, str, str]]]:
        return {id_: list(self._credits.get(id_, ())) for id_ in attempt_ids}

    def append_log(self, attempt_id: str, chunks: Sequence[LogChunk], now_ms: int) -> None:
        self._output.setdefault(attempt_id, []).extend((chunk, now_ms) for chunk in chunks)

    def log_offset_since(self, attempt_id: str, since_ms: int) -> int | None:
        found = (chunk.offset for chunk, at_ms in self._output.get(attempt_id, ()) if at_ms >= since_ms)
        return next(found, None)

    def log_after(self, attempt_id: str, offset: int, limit: int) -> Sequence[LogChunk]:
        ahead = [
            replace(chunk, stored_ms=at_ms)
            for chunk, at_ms in self._output.get(attempt_id, ())
            if chunk.offset + len(chunk.data) > offset
        ]
        return [_from(chunk, offset) for chunk in ahead[:limit]]

    def append_events(self, events: Iterable[NewEvent], now_ms: int) -> None:
        for what in events:
            told = Event(number=len(self._events) + what.count, happened_ms=now_ms, what=what)
            self._events += each(told)

    def events_after(self, job_id: str, number: int, limit: int) -> Sequence[Event]:
        return [event for event in self._events if event.what.job_id == job_id and event.number > number][
            :limit
        ]


def _from(chunk: LogChunk, offset: int) -> LogChunk:
    skip = max(0, offset - chunk.offset)
    return replace(chunk, offset=chunk.offset + skip, data=chunk.data[skip:])
