"""Jobs, attempts and events in SQL."""

from collections.abc import Mapping, Sequence
from itertools import islice

from sqlalchemy import func, select

from coordinator.domain.event import Event, EventKind, NewEvent, each
from coordinator.domain.host import HostState
from coordinator.domain.job import Attempt, Job
from coordinator.domain.states import JOB_LIVE, AttemptState, Cause, JobState
from coordinator.store.bulk import add_to_rows, rows_among, update_rows
from coordinator.store.codec import (
    Row,
    attempt_from_row,
    attempt_guard,
    job_from_row,
    meter_changes,
)
from coordinator.store.live import ONLY_LIVE_ATTEMPTS, ONLY_LIVE_JOBS, ONLY_UNRELEASED
from coordinator.store.ports_hosts import Page
from coordinator.store.sql_many import SqlMany
from coordinator.store.tables import JOB_IS_LIVE, account, attempt, attempt_gpu, event, host, job

JOB = select(job, account.c.name.label("account_name")).join(account, account.c.id == job.c.account_id)
_STATES = select(job.c.id, job.c.state)
_ATTEMPTS = select(attempt)
_IN_TURN = _ATTEMPTS.order_by(attempt.c.epoch)
_UNRELEASED = _ATTEMPTS.where(ONLY_UNRELEASED).order_by(attempt.c.id)
_QUEUED = JOB.where(job.c.state == str(JobState.QUEUED), ONLY_LIVE_JOBS)
LIVE_JOBS = [str(state) for state in sorted(JOB_LIVE)]

_AWAITED = select(attempt.c.id).where(
    # A bound that holds for all, so that the index is used.
    attempt.c.host_id > "",
    ONLY_UNRELEASED,
    attempt.c.state.in_([str(AttemptState.ASSIGNED), str(AttemptState.STOPPING), str(AttemptState.ENDED)])
    | attempt.c.reported_end.is_not(None),
)


class SqlJobs(SqlMany):
    def insert_job(self, new: Job) -> None:
        self.insert_jobs([new])

    def job(self, job_id: str) -> Job | None:
        row = self.beside.execute(JOB.where(job.c.id == job_id)).mappings().one_or_none()
        return None if row is None else job_from_row(row)

    def jobs(self, job_ids: Sequence[str]) -> dict[str, Job]:
        if not job_ids:
            return {}
        rows = rows_among(self.beside, JOB, job.c.id, job_ids).mappings()
        return {row["id"]: job_from_row(row) for row in rows}

    def jobs_of(self, account_id: str, *, live_only: bool, before_id: str, limit: int) -> Sequence[Job]:
        query = JOB.where(job.c.account_id == account_id).order_by(job.c.id.desc()).limit(limit)
        if live_only:
            query = query.where(ONLY_LIVE_JOBS)
        if before_id:
            query = query.where(job.c.id < before_id)
        return [job_from_row(row) for row in self.connection.execute(query).mappings()]

    def queue(self, limit: int) -> Sequence[Job]:
        query = _QUEUED.order_by(job.c.id).limit(limit)
        return [job_from_row(row) for row in self.connection.execute(query).mappings()]

    def queue_after(self, job_id: str, limit: int) -> Page[Job]:
        return self.page(_QUEUED, job.c.id, job_id, limit, job_from_row)

    def save_job(self, before: Job, after: Job) -> bool:
        return self.save_jobs([(before, after)])

    def add_charges(self, amounts: Mapping[str, int]) -> dict[str, JobState]:
        connection, ids = self.connection, list(amounts)
        if not ids or add_to_rows(connection, job.c.charged_micro, amounts, JOB_IS_LIVE) != len(ids):
            return {}
        return {row.id: JobState(row.state) for row in rows_among(connection, _STATES, job.c.id, ids)}

    def insert_attempt(self, new: Attempt) -> bool:
        return not self.insert_attempts([new])

    def attempt(self, attempt_id: str) -> Attempt | None:
        query = select(attempt).where(attempt.c.id == attempt_id)
        row = self.beside.execute(query).mappings().one_or_none()
        return None if row is None else attempt_from_row(row)

    def attempts(self, attempt_ids: Sequence[str]) -> dict[str, Attempt]:
        if not attempt_ids:
            return {}
        rows = rows_among(self.beside, _ATTEMPTS, attempt.c.id, attempt_ids).mappings()
        return {row["id"]: attempt_from_row(row) for row in rows}

    def attempts_of_jobs(self, job_ids: Sequence[str]) -> dict[str, list[Attempt]]:
        found: dict[str, list[Attempt]] = {job_id: [] for job_id in job_ids}
        for row in rows_among(self.beside, _IN_TURN, attempt.c.job_id, job_ids).mappings():
            found[row["job_id"]].append(attempt_from_row(row))
        return found

    def attempts_on_host(self, host_id: str) -> Sequence[Attempt]:
        query = (
            select(attempt)
            .where(
                attempt.c.host_id == host_id,
                ONLY_UNRELEASED,
            )
            .order_by(attempt.c.id)
        )
        return [attempt_from_row(row) for row in self.beside.execute(query).mappings()]

    def held_by_buyers(self) -> dict[str, int]:
        query = (
            select(job.c.account_id, func.count().label("gpus"))
            .select_from(attempt_gpu)
            .join(attempt, attempt.c.id == attempt_gpu.c.attempt_id)
            .join(job, job.c.id == attempt.c.job_id)
            .where(ONLY_LIVE_ATTEMPTS, ONLY_LIVE_JOBS)
            .group_by(job.c.account_id)
        )
        return {row.account_id: row.gpus for row in self.connection.execute(query)}

    def attempts_on_hosts(self, host_ids: Sequence[str]) -> dict[str, list[Attempt]]:
        found: dict[str, list[Attempt]] = {}
        if not host_ids:
            return found
        for row in rows_among(self.beside, _UNRELEASED, attempt.c.host_id, host_ids).mappings():
            found.setdefault(row["host_id"], []).append(attempt_from_row(row))
        return found

    def save_meters(self, pairs: Sequence[tuple[Attempt, Attempt]]) -> bool:
        if not pairs:
            return True
        was = [{**attempt_guard(before), "id": before.id} for before, _ in pairs]
        return update_rows(self.connection, attempt, was, [meter_changes(after) for _, after in pairs])

    def live_attempts(self, after_id: str, limit: int) -> Sequence[Attempt]:
        query = (
            select(attempt)
            .where(ONLY_LIVE_ATTEMPTS, attempt.c.id > after_id)
            .order_by(attempt.c.id)
            .limit(limit)
        )
        return [attempt_from_row(row) for row in self.connection.execute(query).mappings()]

    def attempts_of_lost_hosts(self) -> Sequence[Attempt]:
        query = (
            select(attempt)
            .join(host, host.c.id == attempt.c.host_id)
            .where(ONLY_LIVE_ATTEMPTS, host.c.state == str(HostState.LOST))
        )
        return [attempt_from_row(row) for row in self.connection.execute(query).mappings()]

    def attempts_awaited(self, attempt_id: str, limit: int) -> Page[Attempt]:
        # The index of what is not released holds few of all attempts; to go on after an id it is no help.
        ids = sorted(self.connection.execute(_AWAITED).scalars())
        part = [row_id for row_id in ids if row_id > attempt_id][: limit + 1]
        last = part[limit - 1] if len(part) > limit else ""
        return self.some(_ATTEMPTS, attempt.c.id, part[:limit], last, attempt_from_row)

    def save_attempt(self, before: Attempt, after: Attempt) -> bool:
        return self.save_attempts([(before, after)])

    def events_after(self, job_id: str, number: int, limit: int) -> Sequence[Event]:
        query = (
            select(event)
            .where(event.c.job_id == job_id, event.c.number > number)
            .order_by(event.c.number)
            .limit(limit)
        )
        found = [_event(row) for row in self.connection.execute(query).mappings()]
        return list(islice((one for event in found for one in each(event) if one.number > number), limit))


def _event(row: Row) -> Event:
    return Event(
        number=row["number"],
        happened_ms=row["happened_ms"],
        what=NewEvent(
            kind=EventKind(row["kind"]),
            job_id=row["job_id"] or "",
            host_id=row["host_id"] or "",
            account_id=row["account_id"] or "",
            text=row["text"],
            job_state=None if row["job_state"] is None else JobState(row["job_state"]),
            attempt_id=row["attempt_id"],
            cause=None if row["cause"] is None else Cause(row["cause"]),
            bill_line_number=row["bill_line_number"],
            bill_line_first=row["bill_line_first"],
        ),
    )
