"""The database as a whole, in SQL: restored, relieved of what is old."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    not_,
    select,
    tuple_,
    update,
)

from coordinator.domain.archive import Archived, Part
from coordinator.domain.claim import Strike
from coordinator.domain.job import Attempt, Job
from coordinator.domain.restoration import Restoration
from coordinator.store.bulk import IDS_A_STATEMENT, insert_rows, rows_among
from coordinator.store.codec import attempt_from_row, job_from_row
from coordinator.store.live import ONLY_UNRELEASED
from coordinator.store.ports_keeping import Standing, Stranger
from coordinator.store.sql_jobs import JOB, LIVE_JOBS
from coordinator.store.sql_part import SqlPart
from coordinator.store.tables import (
    account,
    api_token,
    archived,
    attempt,
    bill_line,
    counter,
    credit,
    enrolment_token,
    event,
    host,
    job,
    log_chunk,
    restoration,
    strike,
)
from coordinator.store.tables_people import invitation, login_session
from coordinator.store.triggers import EVENT_COUNTER
from ledger import book
from ledger.tables import SEAL, TRANSFER

_ARCHIVED = select(archived)
_LATEST = select(restoration).order_by(restoration.c.number.desc()).limit(1)
_EVENTS = counter.c.name == EVENT_COUNTER
# Of a job of which its host must still be told, nothing goes.
_OWED = exists().where(attempt.c.job_id == job.c.id, ONLY_UNRELEASED)


class SqlKeeping(SqlPart):
    # What was read: it is asked for with every attempt that a host does not have yet.
    _restored: tuple[Restoration | None] | None = None

    def restoration(self) -> Restoration | None:
        if self._restored is None:
            row = self.beside.execute(_LATEST).one_or_none()
            self._restored = (None if row is None else _restoration(row),)
        return self._restored[0]

    def restorations(self) -> Sequence[Restoration]:
        return [_restoration(row) for row in self.beside.execute(select(restoration).order_by("number"))]

    def insert_restoration(self, made: Restoration) -> None:
        self._restored = None
        self.connection.execute(insert(restoration).values(**vars(made)))
        after = counter.c.value + made.events_left_out
        self.connection.execute(update(counter).where(_EVENTS).values(value=after))

    def standing(self) -> Standing:
        found = self.connection.execute
        moments = [
            select(event.c.happened_ms).order_by(event.c.number.desc()).limit(1),
            select(func.max(host.c.seen_wall_ms)),
            select(TRANSFER.c.posted_ms).order_by(TRANSFER.c.seq.desc()).limit(1),
        ]
        return Standing(
            known_ms=max(found(moment).scalar() or 0 for moment in moments),
            event_number=found(select(counter.c.value).where(_EVENTS)).scalar_one(),
            transfers=book.transfer_count(self.connection),
            seal_hash=bytes(found(select(SEAL.c.hash).order_by(SEAL.c.no.desc()).limit(1)).scalar() or b""),
        )

    def strangers(self, since_ms: int) -> Sequence[Stranger]:
        rows = self.connection.execute(
            select(strike)
            .where(strike.c.kind == str(Strike.UNKNOWN_ATTEMPT), strike.c.happened_ms >= since_ms)
            .order_by(strike.c.happened_ms, strike.c.host_id, strike.c.number)
        )
        return [
            Stranger(
                host_id=row.host_id,
                attempt_id=row.subject,
                run_ms=row.run_ms or 0,
                happened_ms=row.happened_ms,
            )
            for row in rows
        ]

    def account_ids(self) -> Sequence[str]:
        return list(self.connection.execute(select(account.c.id).order_by(account.c.id)).scalars())

    def host_ids(self) -> Sequence[str]:
        hosts = select(host.c.id).where(host.c.revoked_ms.is_(None)).order_by(host.c.id)
        return list(self.connection.execute(hosts).scalars())

    def close_what_was_open(self, now_ms: int) -> int:
        machine, person, session = enrolment_token.c, invitation.c, login_session.c
        closing = (
            update(enrolment_token)
            .where(machine.host_id.is_(None), machine.expires_ms > now_ms)
            .values(expires_ms=now_ms),
            update(invitation)
            .where(person.used_ms.is_(None), person.expires_ms > now_ms)
            .values(expires_ms=now_ms),
            update(login_session)
            .where(session.revoked_ms.is_(None), session.expires_ms > now_ms)
            .values(revoked_ms=now_ms),
        )
        return sum(int(self.connection.execute(statement).rowcount) for statement in closing)

    def revoke_tokens(self, now_ms: int) -> int:
        of = api_token.c
        good = update(api_token).where(of.revoked_ms.is_(None), of.expires_ms > now_ms)
        return int(self.connection.execute(good.values(revoked_ms=now_ms)).rowcount)

    def attempts_since_restored(self, restored: Restoration) -> Sequence[Attempt]:
        # Its jobs are what it told of first.
        first = restored.event_number + restored.events_left_out
        told = select(event.c.attempt_id).where(
            event.c.number > first, event.c.number <= first + restored.jobs, event.c.attempt_id != ""
        )
        query = select(attempt).where(attempt.c.id.in_(told)).order_by(attempt.c.id)
        return [attempt_from_row(row) for row in self.connection.execute(query).mappings()]

    def archivable(self, ended_before_ms: int, after_id: str, limit: int) -> Sequence[Job]:
        return self._ended(ended_before_ms, after_id, limit, not_(_has_left(Part.RECORDS)))

    def output_droppable(self, ended_before_ms: int, after_id: str, limit: int) -> Sequence[Job]:
        has_output = exists().where(attempt.c.job_id == job.c.id, attempt.c.log_offset > 0)
        return self._ended(ended_before_ms, after_id, limit, and_(has_output, not_(_has_left(Part.OUTPUT))))

    def _ended(self, before_ms: int, after_id: str, limit: int, which: ColumnElement[bool]) -> Sequence[Job]:
        query: Select[Any] = (
            JOB.where(
                job.c.id > after_id,
                job.c.state.not_in(LIVE_JOBS),
                job.c.ended_ms < before_ms,
                not_(_OWED),
                which,
            )
            .order_by(job.c.id)
            .limit(limit)
        )
        return [job_from_row(row) for row in self.connection.execute(query).mappings()]

    def insert_archived(self, parts: Sequence[Archived]) -> None:
        insert_rows(self.connection, archived, [{**vars(one), "part": str(one.part)} for one in parts])
        for part in Part:
            ids = [one.job_id for one in parts if one.part is part]
            for start in range(0, len(ids), IDS_A_STATEMENT):
                self._delete(part, ids[start : start + IDS_A_STATEMENT])

    def _delete(self, part: Part, job_ids: Sequence[str]) -> None:
        attempts = select(attempt.c.id).where(attempt.c.job_id.in_(job_ids))
        if part is Part.OUTPUT:
            self.connection.execute(delete(log_chunk).where(log_chunk.c.attempt_id.in_(attempts)))
            return
        # What went back names the line that it went back of: such lines stay.
        credited = exists().where(
            credit.c.attempt_id == bill_line.c.attempt_id, credit.c.number == bill_line.c.number
        )
        lines = delete(bill_line).where(bill_line.c.attempt_id.in_(attempts), not_(credited))
        self.connection.execute(lines)
        self.connection.execute(delete(event).where(event.c.job_id.in_(job_ids)))

    def archived(self, job_ids: Sequence[str]) -> Mapping[str, Sequence[Archived]]:
        found: dict[str, list[Archived]] = {}
        for row in rows_among(self.beside, _ARCHIVED, archived.c.job_id, job_ids) if job_ids else ():
            found.setdefault(row.job_id, []).append(_archived(row))
        return found

    def archived_after(self, after: tuple[str, str], limit: int) -> Sequence[Archived]:
        key = tuple_(archived.c.job_id, archived.c.part)
        query = _ARCHIVED.where(key > after).order_by(archived.c.job_id, archived.c.part).limit(limit)
        return [_archived(row) for row in self.connection.execute(query)]

    def jobs_after(self, job_id: str, limit: int) -> Sequence[Job]:
        query = JOB.where(job.c.id > job_id).order_by(job.c.id).limit(limit)
        return [job_from_row(row) for row in self.connection.execute(query).mappings()]


def _has_left(part: Part) -> ColumnElement[bool]:
    return exists().where(archived.c.job_id == job.c.id, archived.c.part == str(part))


def _archived(row: Row[Any]) -> Archived:
    return Archived(**{**row._mapping, "part": Part(row.part), "sha256": bytes(row.sha256)})


def _restoration(row: Row[Any]) -> Restoration:
    return Restoration(**{**row._mapping, "seal_hash": bytes(row.seal_hash)})
