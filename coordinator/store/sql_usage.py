"""Bill lines and output in SQL."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import and_, func, insert, or_, select

from coordinator.domain.credit import Credit
from coordinator.domain.job import LogChunk
from coordinator.domain.metering import Line
from coordinator.store.bulk import insert_rows
from coordinator.store.codec import line_from_row, line_to_row
from coordinator.store.ports import NUMBER_MAX
from coordinator.store.sql_part import SqlPart
from coordinator.store.tables import attempt, bill_line, credit, log_chunk


class SqlUsage(SqlPart):
    def insert_lines(self, attempt_id: str, lines: Sequence[tuple[Line, str]]) -> None:
        self.insert_all_lines([(attempt_id, line, transfer_id) for line, transfer_id in lines])

    def insert_all_lines(self, lines: Sequence[tuple[str, Line, str]]) -> None:
        insert_rows(self.connection, bill_line, [line_to_row(*line) for line in lines])

    def lines_of(
        self, attempt_ids: Sequence[str], number_min: int = 0, number_max: int = NUMBER_MAX
    ) -> dict[str, list[tuple[Line, str]]]:
        found: dict[str, list[tuple[Line, str]]] = {attempt_id: [] for attempt_id in attempt_ids}
        query = (
            select(bill_line)
            .where(
                bill_line.c.attempt_id.in_(attempt_ids), bill_line.c.number.between(number_min, number_max)
            )
            .order_by(bill_line.c.number)
        )
        for row in self.connection.execute(query).mappings():
            found[row["attempt_id"]].append(line_from_row(row))
        return found

    def lines_after(
        self, job_id: str, epoch: int, number: int, limit: int
    ) -> Sequence[tuple[str, Line, str]]:
        query = (
            select(bill_line)
            .join(attempt, attempt.c.id == bill_line.c.attempt_id)
            .where(
                attempt.c.job_id == job_id,
                or_(attempt.c.epoch > epoch, and_(attempt.c.epoch == epoch, bill_line.c.number > number)),
            )
            .order_by(attempt.c.epoch, bill_line.c.number)
            .limit(limit)
        )
        rows = self.connection.execute(query).mappings()
        return [(row["attempt_id"], *line_from_row(row)) for row in rows]

    def insert_credit(self, attempt_id: str, new: Credit, transfer_id: str, reason: str) -> None:
        self.connection.execute(
            insert(credit).values(attempt_id=attempt_id, **vars(new), transfer_id=transfer_id, reason=reason)
        )

    def credits_of(self, attempt_ids: Sequence[str]) -> dict[str, list[tuple[Credit, str, str]]]:
        found: dict[str, list[tuple[Credit, str, str]]] = {attempt_id: [] for attempt_id in attempt_ids}
        query = select(credit).where(credit.c.attempt_id.in_(attempt_ids)).order_by(credit.c.number)
        for row in self.connection.execute(query):
            what = Credit(number=row.number, earning_micro=row.earning_micro, fee_micro=row.fee_micro)
            found[row.attempt_id].append((what, row.transfer_id, row.reason))
        return found

    def append_log(self, attempt_id: str, chunks: Sequence[LogChunk], now_ms: int) -> None:
        self.beside.execute(
            insert(log_chunk),
            [
                {
                    "attempt_id": attempt_id,
                    "offset_bytes": chunk.offset,
                    "stream": chunk.stream,
                    "data": chunk.data,
                    "stored_ms": now_ms,
                }
                for chunk in chunks
            ],
        )

    def log_offset_since(self, attempt_id: str, since_ms: int) -> int | None:
        """Halves the output again and again: to look at each chunk would read all of it."""
        last = self._chunk_at(attempt_id, NUMBER_MAX)
        if last is None or last[1] < since_ms:
            return None
        # What begins at `high` is new enough, what ends at `low` is not.
        low, high = 0, last[0]
        while low < high:
            middle = (low + high) // 2
            found = self._chunk_at(attempt_id, middle)
            if found is not None and found[1] >= since_ms:
                high = found[0]
            else:
                low = middle + 1
        return high

    def _chunk_at(self, attempt_id: str, offset: int) -> tuple[int, int] | None:
        """Where the chunk that holds this offset begins, and when it came in."""
        of = log_chunk.c
        row = self.beside.execute(
            select(of.offset_bytes, of.stored_ms)
            .where(of.attempt_id == attempt_id, of.offset_bytes <= offset)
            .order_by(of.offset_bytes.desc())
            .limit(1)
        ).one_or_none()
        return None if row is None else (row.offset_bytes, row.stored_ms or 0)

    def log_after(self, attempt_id: str, offset: int, limit: int) -> Sequence[LogChunk]:
        of = log_chunk.c
        first = (
            select(func.max(of.offset_bytes))
            .where(of.attempt_id == attempt_id, of.offset_bytes <= offset)
            .scalar_subquery()
        )
        rows = self.beside.execute(
            select(of.offset_bytes, of.stream, of.data, of.stored_ms)
            .where(of.attempt_id == attempt_id, of.offset_bytes >= first)
            .order_by(of.offset_bytes)
            .limit(limit)
        )
        chunks = [
            LogChunk(
                offset=row.offset_bytes,
                stream=row.stream,
                data=bytes(row.data),
                stored_ms=row.stored_ms or 0,
            )
            for row in rows
        ]
        return [_from(chunk, offset) for chunk in chunks if chunk.offset + len(chunk.data) > offset]


def _from(chunk: LogChunk, offset: int) -> LogChunk:
    """The part of a chunk that begins at `offset`, if it begins within."""
    skip = max(0, offset - chunk.offset)
    return replace(chunk, offset=chunk.offset + skip, data=chunk.data[skip:])
