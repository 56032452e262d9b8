"""Sealed parts of orders in SQL."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select, update

from coordinator.store.bulk import insert_rows, rows_among
from coordinator.store.sql_part import SqlPart
from coordinator.store.tables import job
from coordinator.store.tables_sealed import job_sealed

_BOXES = select(job_sealed)


class SqlSealed(SqlPart):
    def insert_sealed(self, boxes: Mapping[str, bytes]) -> None:
        rows = [{"job_id": job_id, "box": box} for job_id, box in boxes.items()]
        insert_rows(self.connection, job_sealed, rows)

    def sealed(self, job_ids: Sequence[str]) -> Mapping[str, bytes]:
        if not job_ids:
            return {}
        found = rows_among(self.connection, _BOXES, job_sealed.c.job_id, job_ids)
        return {row.job_id: bytes(row.box) for row in found}

    def sealed_after(self, job_id: str, limit: int) -> Sequence[tuple[str, str, bytes]]:
        query = (
            select(job_sealed.c.job_id, job.c.account_id, job_sealed.c.box)
            .join(job, job.c.id == job_sealed.c.job_id)
            .where(job_sealed.c.job_id > job_id)
            .order_by(job_sealed.c.job_id)
            .limit(limit)
        )
        return [(row.job_id, row.account_id, bytes(row.box)) for row in self.connection.execute(query)]

    def reseal(self, job_id: str, box: bytes) -> None:
        self.connection.execute(update(job_sealed).where(job_sealed.c.job_id == job_id).values(box=box))
