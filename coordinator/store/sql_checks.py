"""The market's promises, each as a query that finds what breaks it."""

from sqlalchemy import func, select

from coordinator.domain.states import ATTEMPT_LIVE, JOB_LIVE
from coordinator.store.sql_part import SqlPart
from coordinator.store.tables import attempt, attempt_gpu, bill_line, counter, event, job
from coordinator.store.triggers import EVENT_COUNTER
from ledger import book, chart

JOBS_A_LOOK = 500
_LIVE_JOBS = {str(state) for state in JOB_LIVE}
_LIVE_ATTEMPTS = [str(state) for state in sorted(ATTEMPT_LIVE)]


class SqlChecks(SqlPart):
    def market_violations(self) -> list[str]:
        return [
            *self._charges_equal_lines(),
            *self._holds_equal_budgets(),
            *self._lines_without_gaps(),
            *self._gpus_sold_once(),
            *self._events_without_gaps(),
        ]

    def _charges_equal_lines(self) -> list[str]:
        """What a job was charged is the sum of its bill lines."""
        total = func.coalesce(func.sum(bill_line.c.charge_micro), 0)
        rows = self.connection.execute(
            select(job.c.id, job.c.charged_micro, total.label("lines_micro"))
            .outerjoin(attempt, attempt.c.job_id == job.c.id)
            .outerjoin(bill_line, bill_line.c.attempt_id == attempt.c.id)
            .group_by(job.c.id, job.c.charged_micro)
            .having(total != job.c.charged_micro)
        )
        return [
            f"{row.id} was charged {row.charged_micro} but its bill says {row.lines_micro}" for row in rows
        ]

    def _holds_equal_budgets(self) -> list[str]:
        """A live job's hold is its budget less its charges; an ended job holds nothing."""
        found, after = list[str](), ""
        while True:
            rows = self.connection.execute(
                select(job.c.id, job.c.state, job.c.budget_micro, job.c.charged_micro)
                .where(job.c.id > after)
                .order_by(job.c.id)
                .limit(JOBS_A_LOOK)
            ).all()
            if not rows:
                return found
            after = rows[-1].id
            held = book.balances(self.connection, [chart.hold(row.id) for row in rows])
            for row in rows:
                due = row.budget_micro - row.charged_micro if row.state in _LIVE_JOBS else 0
                if held.get(chart.hold(row.id)) != due:
                    found.append(f"{row.id} should hold {due} but holds {held.get(chart.hold(row.id))}")

    def _lines_without_gaps(self) -> list[str]:
        """An attempt's records are numbered from 1, and its last is the one the meter stands at."""
        rows = self.connection.execute(
            select(attempt.c.id, attempt.c.usage_number, func.count(bill_line.c.number).label("lines"))
            .outerjoin(bill_line, bill_line.c.attempt_id == attempt.c.id)
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
            select(func.count(event.c.number), func.coalesce(func.max(event.c.number), 0))
        ).one()
        head = self.connection.execute(
            select(counter.c.value).where(counter.c.name == EVENT_COUNTER)
        ).scalar_one()
        if count == last == head:
            return []
        return [f"{count} events are numbered up to {last}, and the counter says {head}"]
