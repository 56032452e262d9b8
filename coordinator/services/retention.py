"""Output is dropped when its time has passed. (What goes into files is the affair of `keeping/archive`.)"""

import hashlib

from coordinator.domain.archive import Archived, Part
from coordinator.store.ports import Transaction

DAY_MS = 86_400_000
JOBS_A_PASS = 50


def drop_output_once(tx: Transaction, days_kept: int, after_id: str, now_ms: int) -> tuple[int, str]:
    """Of jobs that ended so long ago: how many, and where the next pass goes on, "" for at the start.

    Its digests stay, with the attempts, and stand for it.
    """
    jobs = tx.output_droppable(now_ms - days_kept * DAY_MS, after_id, JOBS_A_PASS)
    attempts = tx.attempts_of_jobs([job.id for job in jobs])
    parts = []
    for job in jobs:
        digest = hashlib.sha256()
        for attempt in attempts[job.id]:
            if attempt.log_totals is not None:
                digest.update(attempt.log_totals.stdout_sha256 + attempt.log_totals.stderr_sha256)
        parts.append(
            Archived(
                job_id=job.id,
                part=Part.OUTPUT,
                file="",
                sha256=digest.digest(),
                lines=0,
                events=0,
                charge_micro=0,
                archived_ms=now_ms,
            )
        )
    tx.insert_archived(parts)
    return len(jobs), jobs[-1].id if len(jobs) == JOBS_A_PASS else ""
