"""What was paid and earned, in SQL."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, ColumnElement, cast, select

from coordinator.domain.job import Attempt, Job
from coordinator.store.codec import attempt_from_row, job_from_row
from coordinator.store.sql_part import SqlPart
from coordinator.store.tables import account, attempt, job
from ledger import book
from ledger.entries import Statement
from runtime.ids import first_id

# Ids bear the time at which they were made, which is not to the millisecond what was written beside them.
_ID_SLACK_MS = 3_600_000


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
        self, seller_account_id: str, since_ms: int, until_ms: int, before_id: str, limit: int
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
        return [attempt_from_row(row) for row in self.connection.execute(query).mappings()]


def _made(
    column: ColumnElement[str], prefix: str, since_ms: int, until_ms: int
) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """What an index of ids can be asked for."""
    return (
        column >= first_id(prefix, max(0, since_ms - _ID_SLACK_MS)),
        column < first_id(prefix, until_ms + _ID_SLACK_MS),
    )
