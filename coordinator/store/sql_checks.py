"""The market's promises, each as a query that finds what breaks it."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, case, exists, func, not_, select, true

from coordinator.domain.archive import Part
from coordinator.domain.job import Job
from coordinator.domain.states import ATTEMPT_LIVE, JOB_LIVE, JobState
from coordinator.store.codec import job_from_row
from coordinator.store.sql_jobs import JOB
from coordinator.store.sql_part import SqlPart
from coordinator.store.tables import (
    archived,
    attempt,
    attempt_gpu,
    bill_line,
    counter,
    event,
    job,
    restoration,
)
from coordinator.store.triggers import EVENT_COUNTER
from ledger import audit as ledger_audit
from ledger import book, chart

JOBS_A_LOOK = 500
# Which rows a check looks at.
Which = ColumnElement[bool]
_HELD = (job.c.budget_micro - job.c.charged_micro).label("held_micro")
_PLACED = [str(JobState.STARTING), str(JobState.RUNNING)]
_LIVE_JOBS = {str(state) for state in JOB_LIVE}
_RECORDS_LEFT = exists().where(archived.c.part == str(Part.RECORDS))
# An event has a number for each bill line that it tells of.
_NUMBERS = func.coalesce(event.c.bill_line_number - event.c.bill_line_first, 0) + 1
_LIVE_ATTEMPTS = [str(state) for state in sorted(ATTEMPT_LIVE)]


class SqlChecks(SqlPart):
    def market_violations(self) -> list[str]:
        return [
            *self._charges_equal_lines(true()),
            *self._charges_equal_archive(),
            *self._holds_equal_budgets(),
            *self._lines_without_gaps(true()),
            *self._jobs_have_attempts(true()),
            *self._gpus_sold_once(),
            *self._events_without_gaps(),
        ]

    def sample_violations(self, after_job_id: str, limit: int) -> tuple[list[str], Sequence[str]]:
        newest = select(job.c.id).order_by(job.c.id.desc()).limit(limit)
        following = select(job.c.id).where(job.c.id > after_job_id).order_by(job.c.id).limit(limit)
        ids = [*self.connection.execute(newest).scalars(), *self.connection.execute(following).scalars()]
        of_these = job.c.id.in_(ids)
        transfers = book.transfer_count(self.connection)
        found = [str(one) for one in ledger_audit.recent(self.connection, max(0, transfers - limit))]
        found += self._charges_equal_lines(of_these)
        found += self._holds_of(
            self.connection.execute(select(job.c.id, job.c.state, _HELD).where(of_these)).all()
        )
        found += self._lines_without_gaps(attempt.c.job_id.in_(ids))
        found += self._jobs_have_attempts(of_these)
        return found, ids

    def unreleased(self, after_job_id: str, limit: int) -> tuple[Sequence[tuple[Job, int]], str]:
        ended = (
            select(job.c.id)
            .where(job.c.id > after_job_id, job.c.state.not_in(_LIVE_JOBS))
            .order_by(job.c.id)
            .limit(limit)
        )
        ids = list(self.connection.execute(ended).scalars())
        held = book.balances(self.connection, [chart.hold(job_id) for job_id in ids])
        left = {job_id: micro for job_id in ids if (micro := held.get(chart.hold(job_id), 0))}
        jobs = self.connection.execute(JOB.where(job.c.id.in_(left))).mappings() if left else ()
        return [(job_from_row(row), left[row["id"]]) for row in jobs], ids[-1] if ids else ""

    def _charges_equal_lines(self, which: Which) -> list[str]:
        """What a job was charged is the sum of its bill lines, as long as they are here."""
        total = func.coalesce(func.sum(bill_line.c.charge_micro), 0)
        rows = self.connection.execute(
            select(job.c.id, job.c.charged_micro, total.label("lines_micro"))
            .outerjoin(attempt, attempt.c.job_id == job.c.id)
            .outerjoin(bill_line, bill_line.c.attempt_id == attempt.c.id)
            .where(which, not_(_RECORDS_LEFT.where(archived.c.job_id == job.c.id)))
            .group_by(job.c.id, job.c.charged_micro)
            .having(total != job.c.charged_micro)
        )
        return [
            f"{row.id} was charged {row.charged_micro} but its bill says {row.lines_micro}" for row in rows
        ]

    def _charges_equal_archive(self) -> list[str]:
        """What went into the archive was all of it. (What is in its files, `archive --check` says.)"""
        rows = self.connection.execute(
            select(job.c.id, job.c.charged_micro, archived.c.charge_micro, archived.c.file)
            .join(archived, archived.c.job_id == job.c.id)
            .where(archived.c.part == str(Part.RECORDS), archived.c.charge_micro != job.c.charged_micro)
        )
        return [
            f"{row.id} was charged {row.charged_micro} but {row.file} has lines of {row.charge_micro}"
            for row in rows
        ]

    def _holds_equal_budgets(self) -> list[str]:
        """A live job's hold is its budget less its charges; an ended job holds nothing."""
        found, after = list[str](), ""
        while True:
            rows = self.connection.execute(
                select(job.c.id, job.c.state, _HELD)
                .where(job.c.id > after)
                .order_by(job.c.id)
                .limit(JOBS_A_LOOK)
            ).all()
            if not rows:
                return found
            after = rows[-1].id
            found += self._holds_of(rows)

    def _holds_of(self, rows: Sequence[Any]) -> list[str]:
        found, held = list[str](), book.balances(self.connection, [chart.hold(row.id) for row in rows])
        for row in rows:
            due = row.held_micro if row.state in _LIVE_JOBS else 0
            if held.get(chart.hold(row.id)) != due:
                found.append(f"{row.id} should hold {due} but holds {held.get(chart.hold(row.id))}")
        return found

    def _jobs_have_attempts(self, which: Which) -> list[str]:
        """A job that starts or runs has one live attempt; one that waits or has ended has none."""
        rows = self.connection.execute(
            select(job.c.id, job.c.state, func.count(attempt.c.id).label("live"))
            .outerjoin(attempt, (attempt.c.job_id == job.c.id) & attempt.c.state.in_(_LIVE_ATTEMPTS))
            .where(which)
            .group_by(job.c.id, job.c.state)
            .having(func.count(attempt.c.id) != case((job.c.state.in_(_PLACED), 1), else_=0))
        )
        return [f"{row.id} is {row.state} and has {row.live} live attempts" for row in rows]

    def _lines_without_gaps(self, which: Which) -> list[str]:
        """An attempt's records are numbered from 1, and its last is the one the meter stands at."""
        rows = self.connection.execute(
            select(attempt.c.id, attempt.c.usage_number, func.count(bill_line.c.number).label("lines"))
            .outerjoin(bill_line, bill_line.c.attempt_id == attempt.c.id)
            .where(which, not_(_RECORDS_LEFT.where(archived.c.job_id == attempt.c.job_id)))
            .group_by(attempt.c.id, attempt.c.usage_number)
            .having(
                (func.count(bill_line.c.number) != attempt.c.usage_number)
                | (func.coalesce(func.max(bill_line.c.number), 0) != attempt.c.usage_number)
            )
        )
        return [f"{row.id} stands at record {row.usage_number} but has {row.lines}" for row in rows]

    def _gpus_sold_once(self) -> list[str]:
        """A GPU is in use by a live attempt or free."""
        rows = self.connection.execute(
            select(attempt_gpu.c.gpu_uuid, attempt.c.id)
            .join(attempt, attempt.c.id == attempt_gpu.c.attempt_id)
            .where(attempt.c.state.not_in(_LIVE_ATTEMPTS))
        )
        return [f"GPU {row.gpu_uuid} is still taken by {row.id}, which has ended" for row in rows]

    def _events_without_gaps(self) -> list[str]:
        count, last = self.connection.execute(
            select(func.coalesce(func.sum(_NUMBERS), 0), func.coalesce(func.max(event.c.number), 0))
        ).one()
        head, left_out, left = (
            self.connection.execute(query).scalar_one()
            for query in (
                select(counter.c.value).where(counter.c.name == EVENT_COUNTER),
                # Numbers that no event has, and those of events that went into the archive.
                select(func.coalesce(func.sum(restoration.c.events_left_out), 0)),
                select(func.coalesce(func.sum(archived.c.events), 0)),
            )
        )
        # The newest of all may itself have gone.
        if count + left + left_out == head and (last == head or left):
            return []
        return [f"{count} events are numbered up to {last}, and the counter says {head}"]
