"""What was paid and earned, in SQL."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, ColumnElement, and_, case, cast, delete, func, insert, select

from coordinator.domain.cap import SpendingCap
from coordinator.domain.credit import Refund
from coordinator.domain.job import Attempt, Job
from coordinator.store.bulk import rows_among
from coordinator.store.codec import attempt_from_row, job_from_row
from coordinator.store.live import ONLY_LIVE_JOBS
from coordinator.store.ports_books import hold_id
from coordinator.store.sql_jobs import LIVE_JOBS
from coordinator.store.sql_part import SqlPart
from coordinator.store.tables import account, attempt, credit, job, log_chunk, spending_cap
from ledger import book
from ledger.entries import Statement
from runtime.ids import first_id

# Ids bear the time at which they were made, which is not to the millisecond what was written beside them.
_ID_SLACK_MS = 3_600_000
_CAPS = select(spending_cap)


class SqlBooks(SqlPart):
    def statement(self, code: str, after_seq: int, limit: int, since_ms: int, until_ms: int) -> Statement:
        return book.statement(
            self.connection,
            code,
            after_seq=after_seq,
            limit=limit,
            since_ms=since_ms,
            # The ledger's periods include their end.
            until_ms=until_ms - 1,
        )

    def jobs_taken_in(
        self, account_id: str, since_ms: int, until_ms: int, before_id: str, limit: int
    ) -> Sequence[Job]:
        query = (
            select(job, account.c.name.label("account_name"))
            .join(account, account.c.id == job.c.account_id)
            .where(
                job.c.account_id == account_id,
                *_made(job.c.id, "job", since_ms, until_ms),
                job.c.submitted_ms >= since_ms,
                job.c.submitted_ms < until_ms,
            )
            .order_by(job.c.id.desc())
            .limit(limit)
        )
        if before_id:
            query = query.where(job.c.id < before_id)
        return [job_from_row(row) for row in self.connection.execute(query).mappings()]

    def attempts_sold(
        self,
        seller_account_id: str,
        since_ms: int,
        until_ms: int,
        before_id: str,
        limit: int,
        host_id: str = "",
    ) -> Sequence[Attempt]:
        assigned_ms = cast(attempt.c.assigned["wall_ms"].as_string(), BigInteger)
        query = (
            select(attempt)
            .where(
                attempt.c.seller_account_id == seller_account_id,
                *_made(attempt.c.id, "att", since_ms, until_ms),
                assigned_ms >= since_ms,
                assigned_ms < until_ms,
            )
            .order_by(attempt.c.id.desc())
            .limit(limit)
        )
        if before_id:
            query = query.where(attempt.c.id < before_id)
        if host_id:
            query = query.where(attempt.c.host_id == host_id)
        return [attempt_from_row(row) for row in self.connection.execute(query).mappings()]

    def caps(self, account_ids: Sequence[str]) -> dict[str, SpendingCap]:
        found = rows_among(self.beside, _CAPS, spending_cap.c.account_id, account_ids)
        return {
            row.account_id: SpendingCap(month_micro=row.month_micro, alert_percent=row.alert_percent)
            for row in found
        }

    def save_cap(self, account_id: str, cap: SpendingCap | None) -> None:
        self.connection.execute(delete(spending_cap).where(spending_cap.c.account_id == account_id))
        if cap is not None:
            self.connection.execute(insert(spending_cap).values(account_id=account_id, **vars(cap)))

    def spent(self, account_ids: Sequence[str], since_ms: int, until_ms: int) -> dict[str, int]:
        taken_in = and_(
            job.c.account_id.in_(account_ids),
            *_made(job.c.id, "job", since_ms, until_ms),
            job.c.submitted_ms >= since_ms,
            job.c.submitted_ms < until_ms,
        )
        counts = case((job.c.state.in_(LIVE_JOBS), job.c.budget_micro), else_=job.c.charged_micro)
        costs = (
            select(job.c.account_id, func.sum(counts).label("micro"))
            .where(taken_in)
            .group_by(job.c.account_id)
        )
        back = (
            select(job.c.account_id, func.sum(credit.c.earning_micro + credit.c.fee_micro).label("micro"))
            .join(attempt, attempt.c.job_id == job.c.id)
            .join(credit, credit.c.attempt_id == attempt.c.id)
            .where(taken_in, job.c.state.not_in(LIVE_JOBS))
            .group_by(job.c.account_id)
        )
        spent = {row.account_id: int(row.micro) for row in self.connection.execute(costs)}
        for row in self.connection.execute(back):
            spent[row.account_id] -= int(row.micro)
        return spent

    def refunds_of(self, job_ids: Sequence[str]) -> dict[str, list[Refund]]:
        found: dict[str, list[Refund]] = {job_id: [] for job_id in job_ids}
        for posted in book.adjustments(self.connection, job_ids):
            transfer = posted.transfer
            # What the rule gives back corrects the charges, not the hold.
            if transfer.corrects == hold_id(transfer.ref):
                found[transfer.ref].append(
                    Refund(
                        transfer_id=str(transfer.id),
                        amount_micro=transfer.amount_micro,
                        reason=transfer.reason,
                        given_ms=posted.outcome.posted_ms,
                    )
                )
        return found

    def open_jobs(self) -> dict[str, int]:
        query = select(job.c.account_id, func.count().label("jobs")).where(ONLY_LIVE_JOBS)
        rows = self.connection.execute(query.group_by(job.c.account_id))
        return {row.account_id: row.jobs for row in rows}

    def output_bytes(self) -> dict[str, int]:
        # By attempt first: there are many times as many chunks.
        of = select(log_chunk.c.attempt_id, func.sum(func.length(log_chunk.c.data)).label("stored"))
        stored = of.group_by(log_chunk.c.attempt_id).subquery()
        query = (
            select(job.c.account_id, func.sum(stored.c.stored).label("stored"))
            .join_from(stored, attempt, attempt.c.id == stored.c.attempt_id)
            .join(job, job.c.id == attempt.c.job_id)
            .group_by(job.c.account_id)
        )
        return {row.account_id: int(row.stored) for row in self.connection.execute(query)}


def _made(
    column: ColumnElement[str], prefix: str, since_ms: int, until_ms: int
) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """What an index of ids can be asked for."""
    return (
        column >= first_id(prefix, max(0, since_ms - _ID_SLACK_MS)),
        column < first_id(prefix, until_ms + _ID_SLACK_MS),
    )
