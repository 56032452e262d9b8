"""What is old leaves the database for files, month by month, and can be read back from them.

A file has lines of JSON, compressed: of each job one that says what follows, then its bill lines, its events,
and its output. The database keeps the digest of each job's lines, and deletes what it has such a digest of:
the file comes first, whole and on the disk.
"""

import base64
import datetime as dt
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from coordinator.domain.archive import Archived, Part
from coordinator.domain.event import billed
from coordinator.domain.job import Attempt, Job
from coordinator.keeping.copies import sync
from coordinator.keeping.manifest import DamagedError, KeepingError
from coordinator.store.ports import Transaction
from coordinator.store.transaction import SqlTransaction
from ledger.engine import reading

# A file's worth; what it holds is deleted in one transaction, for which the coordinator waits.
JOBS_A_FILE, CHUNKS_A_LOOK, EVENTS_A_LOOK = 200, 64, 500
_HEAD = '{"head": '


@dataclass(frozen=True, kw_only=True)
class Left:
    """A file that was made."""

    file: str
    jobs: int
    lines: int


def month_start_ms(month: str) -> int:
    """`2026-01`, as the moment at which it begins in UTC."""
    try:
        begins = dt.datetime.strptime(month, "%Y-%m").replace(tzinfo=dt.UTC)
    except ValueError:
        raise KeepingError(f"{month!r}: a month as 2026-01") from None
    return int(begins.timestamp() * 1_000)


def archive(engine: Engine, folder: Path, before_ms: int, now_ms: int) -> Iterator[Left]:
    """Jobs that ended before then, oldest first. May be broken off anywhere and begun again."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    months: dict[str, list[Job]] = {}
    after = ""
    while True:
        with reading(engine) as connection:
            jobs = SqlTransaction(connection).archivable(before_ms, after, JOBS_A_FILE)
        for job in jobs:
            of_month = months.setdefault(_month(job.ended_ms), [])
            of_month.append(job)
            if len(of_month) == JOBS_A_FILE:
                yield _make(engine, folder, months.pop(_month(job.ended_ms)), now_ms)
        if len(jobs) < JOBS_A_FILE:
            break
        after = jobs[-1].id
    for _, jobs_left in sorted(months.items()):
        yield _make(engine, folder, jobs_left, now_ms)


def _make(engine: Engine, folder: Path, jobs: Sequence[Job], now_ms: int) -> Left:
    month, number = _month(jobs[0].ended_ms), 1
    while (path := folder / f"usance-{month}-{number:04}.jsonl.gz").exists():
        number += 1
    part = path.with_suffix(".part")
    parts = list[Archived]()
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with (
        reading(engine) as connection,
        os.fdopen(file, "wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as out,
    ):
        tx = SqlTransaction(connection)
        for job in jobs:
            parts += _write(tx, out, job, path.name, now_ms)
    sync(part)
    part.rename(path)
    sync(folder)
    with engine.begin() as connection:
        SqlTransaction(connection).insert_archived(parts)
    return Left(file=path.name, jobs=len(jobs), lines=sum(one.lines for one in parts))


def _write(tx: Transaction, out: gzip.GzipFile, job: Job, file: str, now_ms: int) -> Iterator[Archived]:
    attempts = tx.attempts_of_jobs([job.id])[job.id]
    known = {one.part for one in tx.archived([job.id]).get(job.id, ())}
    for part, lines in ((Part.RECORDS, _records(tx, job, attempts)), (Part.OUTPUT, _output(tx, attempts))):
        if part in known:
            continue
        digest, count, events, charge_micro = hashlib.sha256(), 0, 0, 0
        for line in ({"head": {"job": job.id, "part": str(part)}}, *lines):
            events += line.get("kind") == "event"
            charge_micro += int(line.get("charge_micro", 0))
            raw = json.dumps(line, separators=(", ", ": "), default=_plain).encode() + b"\n"
            digest.update(raw)
            out.write(raw)
            count += 1
        yield Archived(
            job_id=job.id,
            part=part,
            file=file,
            sha256=digest.digest(),
            lines=count,
            events=events,
            charge_micro=charge_micro,
            archived_ms=now_ms,
        )


def _records(tx: Transaction, job: Job, attempts: Sequence[Attempt]) -> Iterator[dict[str, Any]]:
    lines = tx.lines_of([attempt.id for attempt in attempts])
    told = {(key, line.record.number): billed([line]) for key, of in lines.items() for line, _ in of}
    for attempt in attempts:
        meter = attempt.meter
        yield {
            "kind": "attempt",
            "attempt": attempt.id,
            "epoch": attempt.epoch,
            "host": attempt.host_id,
            "seller": attempt.seller_account_id,
            "hour_price_micro": meter.hour_price_micro,
            "fee_ppm": meter.fee_ppm,
            "end_reason": attempt.end_reason,
        }
        for line, transfer_id in lines[attempt.id]:
            yield {
                "kind": "line",
                "attempt": attempt.id,
                **vars(line.record),
                "gpus": [vars(use) for use in line.record.gpus],
                "witnessed_ms": line.witnessed_ms,
                "billed_through_ms": line.billed_through_ms,
                **line.charge._asdict(),
                "transfer": transfer_id,
            }
    after = 0
    while events := tx.events_after(job.id, after, EVENTS_A_LOOK):
        for event in events:
            yield {"kind": "event", "number": event.number, "happened_ms": event.happened_ms} | {
                "event": event.what.kind,
                "text": told.get((event.what.attempt_id, event.what.bill_line_number or 0), event.what.text),
                "attempt": event.what.attempt_id,
                "cause": event.what.cause,
            }
        after = events[-1].number


def _output(tx: Transaction, attempts: Sequence[Attempt]) -> Iterator[dict[str, Any]]:
    for attempt in attempts:
        offset = 0
        while chunks := tx.log_after(attempt.id, offset, CHUNKS_A_LOOK):
            for chunk in chunks:
                yield {
                    "kind": "output",
                    "attempt": attempt.id,
                    "offset": chunk.offset,
                    "stream": chunk.stream,
                    "stored_ms": chunk.stored_ms,
                    "data": base64.b64encode(chunk.data).decode(),
                }
            offset = chunks[-1].offset + len(chunks[-1].data)


def parts_in(path: Path) -> Iterator[tuple[str, Part, bytes, list[bytes]]]:
    """Job, part, digest and lines, in turn."""
    lines = list[bytes]()
    try:
        with gzip.open(path) as file:
            for raw in file:
                if raw.startswith(_HEAD.encode()) and lines:
                    yield _part(lines)
                    lines = []
                lines.append(raw)
        if lines:
            yield _part(lines)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} can't be read: {error}") from None


def _part(lines: list[bytes]) -> tuple[str, Part, bytes, list[bytes]]:
    head = json.loads(lines[0])["head"]
    return head["job"], Part(head["part"]), hashlib.sha256(b"".join(lines)).digest(), lines


def look_up(tx: Transaction, folder: Path, job_id: str) -> Iterator[dict[str, Any]]:
    """What has left of a job, as it was; raises DamagedError where it is not what left."""
    left = tx.archived([job_id]).get(job_id, ())
    if not left:
        raise KeepingError(f"{job_id}: nothing of it is in the archive")
    for one in left:
        if not one.file:
            yield {"kind": "dropped", "part": one.part, "dropped_ms": one.archived_ms}
            continue
        for line in _found(folder / one.file, one):
            yield json.loads(line)


def _found(path: Path, wanted: Archived) -> list[bytes]:
    for job_id, part, digest, lines in parts_in(path):
        if (job_id, part) == (wanted.job_id, wanted.part):
            if digest != wanted.sha256:
                raise DamagedError(f"{path}: {part} of {job_id} is not what left the database")
            return lines
    raise DamagedError(f"{path}: there is no {wanted.part} of {wanted.job_id} in it")


def check(tx: Transaction, folder: Path) -> tuple[list[str], int]:
    """What of all that has left can't be read back as it was; how many parts were looked at."""
    found, looked_at, after = list[str](), 0, ("", "")
    by_file: dict[str, dict[tuple[str, Part], bytes]] = {}
    while page := tx.archived_after(after, EVENTS_A_LOOK):
        for one in page:
            if one.file:
                by_file.setdefault(one.file, {})[one.job_id, one.part] = one.sha256
                looked_at += 1
        after = (page[-1].job_id, str(page[-1].part))
    for name, wanted in sorted(by_file.items()):
        try:
            for job_id, part, digest, _ in parts_in(folder / name):
                if wanted.pop((job_id, part), digest) != digest:
                    found.append(f"{name}: {part} of {job_id} is not what left the database")
        except DamagedError as error:
            found.append(str(error))
            continue
        found += [f"{name}: {part} of {job_id} is missing" for job_id, part in wanted]
    return found, looked_at


def _month(time_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(time_ms / 1_000, dt.UTC):%Y-%m}"


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{value!r} has no place in an archive")
