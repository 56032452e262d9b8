"""Rows of many jobs and attempts, and what goes with them, each kind written with one statement."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from sqlalchemy import bindparam, select, update

from coordinator.domain.event import NewEvent
from coordinator.domain.job import Attempt, Job
from coordinator.domain.states import AttemptState
from coordinator.store.bulk import delete_among, insert_rows, rows_among, update_rows
from coordinator.store.codec import (
    attempt_changes,
    attempt_facts,
    attempt_guard,
    job_changes,
    order_changes,
)
from coordinator.store.sql_part import SqlPart
from coordinator.store.tables import attempt, attempt_gpu, counter, event, job
from coordinator.store.tables_sealed import job_sealed
from coordinator.store.triggers import EVENT_COUNTER

_NUMBER_EVENTS = (
    update(counter)
    .where(counter.c.name == EVENT_COUNTER)
    .values(value=counter.c.value + bindparam("more"))
    .returning(counter.c.value)
)
_TAKEN = select(attempt_gpu.c.gpu_uuid, attempt_gpu.c.attempt_id)


class SqlMany(SqlPart):
    def insert_jobs(self, new: Sequence[Job]) -> None:
        rows = [
            {
                "id": item.id,
                "account_id": item.account_id,
                "submitted_ms": item.submitted_ms,
                **vars(item.origin),
                **order_changes(item),
                **job_changes(item),
            }
            for item in new
        ]
        insert_rows(self.connection, job, rows)

    def save_jobs(self, pairs: Sequence[tuple[Job, Job]]) -> bool:
        """Each as `save_job` does it; False: one of them was not as it was read."""
        saved = True
        extended = [pair for pair in pairs if pair[0].spec is not pair[1].spec]
        moved = [pair for pair in pairs if pair[0].spec is pair[1].spec]
        for part, is_extended in ((extended, True), (moved, False)):
            was = [
                {"id": before.id, "state": str(before.state), "charged_micro": before.charged_micro}
                for before, _ in part
            ]
            new = [job_changes(after) | (order_changes(after) if is_extended else {}) for _, after in part]
            saved = (not part or update_rows(self.connection, job, was, new)) and saved
        self._forget_sealed([after.id for _, after in pairs if after.is_over and after.spec.is_confidential])
        return saved

    def _forget_sealed(self, job_ids: Sequence[str]) -> None:
        if job_ids:
            delete_among(self.connection, job_sealed.c.job_id, job_ids)

    def insert_attempts(self, new: Sequence[Attempt]) -> Sequence[str]:
        """Of which a GPU is in use: these are left out."""
        taken = set(self.gpus_taken([gpu.uuid for item in new for gpu in item.gpus]))
        kept, refused = list[Attempt](), list[str]()
        for item in new:
            uuids = {gpu.uuid for gpu in item.gpus}
            if uuids & taken:
                refused.append(item.id)
            else:
                taken |= uuids
                kept.append(item)
        self.write_attempts(kept)
        return refused

    def write_attempts(self, new: Sequence[Attempt]) -> None:
        insert_rows(self.connection, attempt, [{**attempt_facts(a), **attempt_changes(a)} for a in new])
        gpus = [
            {"gpu_uuid": gpu.uuid, "attempt_id": item.id, "host_id": item.host_id}
            for item in new
            if item.state is not AttemptState.ENDED
            for gpu in item.gpus
        ]
        insert_rows(self.connection, attempt_gpu, gpus)

    def save_attempts(self, pairs: Sequence[tuple[Attempt, Attempt]]) -> bool:
        """Each as `save_attempt` does it; False: one of them was not as it was read."""
        if not pairs:
            return True
        was = [{**attempt_guard(before), "id": before.id} for before, _ in pairs]
        new = [attempt_changes(after) for _, after in pairs]
        if not update_rows(self.connection, attempt, was, new):
            return False
        ended = [
            after.id
            for before, after in pairs
            if after.state is AttemptState.ENDED and before.state is not AttemptState.ENDED
        ]
        if ended:
            delete_among(self.connection, attempt_gpu.c.attempt_id, ended)
        return True

    def gpus_taken(self, uuids: Sequence[str]) -> Mapping[str, str]:
        """Which of these GPUs are in use, and by which attempt."""
        if not uuids:
            return {}
        found = rows_among(self.beside, _TAKEN, attempt_gpu.c.gpu_uuid, uuids)
        return {row.gpu_uuid: row.attempt_id for row in found}

    def append_all_events(self, new: Sequence[tuple[NewEvent, int]]) -> None:
        """Each with the time at which it happened."""
        more = sum(item.count for item, _ in new)
        last = self.connection.execute(_NUMBER_EVENTS, {"more": more}).scalar_one()
        numbers = accumulate((item.count for item, _ in new), initial=last - more)
        next(numbers)
        rows = [
            {
                "number": number,
                "job_id": item.job_id or None,
                "host_id": item.host_id or None,
                "account_id": item.account_id or None,
                "attempt_id": item.attempt_id,
                "kind": str(item.kind),
                "happened_ms": happened_ms,
                "text": item.text,
                "job_state": None if item.job_state is None else str(item.job_state),
                "cause": None if item.cause is None else str(item.cause),
                "bill_line_number": item.bill_line_number,
                "bill_line_first": item.bill_line_first,
            }
            for number, (item, happened_ms) in zip(numbers, new, strict=True)
        ]
        insert_rows(self.connection, event, rows)

    def append_events(self, events: Iterable[NewEvent], now_ms: int) -> None:
        self.append_all_events([(item, now_ms) for item in events])
