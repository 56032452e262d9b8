"""How much there is and how old it is: by indexes and counters, for it is asked every few seconds."""

from pathlib import Path

from sqlalchemy import Connection, func, select

from coordinator.domain.states import AttemptState, JobState
from coordinator.store.live import ONLY_LIVE_ATTEMPTS, ONLY_LIVE_JOBS
from coordinator.store.ports_books import Vitals
from coordinator.store.sql_part import SqlPart
from coordinator.store.tables import attempt, attempt_gpu, job
from ledger import book
from ledger.seal import sealed_to

_JOBS = select(job.c.state, func.count().label("jobs")).where(ONLY_LIVE_JOBS).group_by(job.c.state)
_OLDEST = select(func.min(job.c.queued_ms)).where(job.c.state == str(JobState.QUEUED), ONLY_LIVE_JOBS)
_SOLD = select(func.count()).select_from(attempt_gpu)
_BEHIND = select(func.max(attempt.c.run_ms_reported - attempt.c.usage_end_ms)).where(
    ONLY_LIVE_ATTEMPTS, attempt.c.state.in_([str(AttemptState.RUNNING), str(AttemptState.STOPPING)])
)
_BYTES = "SELECT pg_database_size(current_database())"


class SqlVitals(SqlPart):
    def vitals(self) -> Vitals:
        ask = self.connection.execute
        return Vitals(
            database=self.connection.dialect.name,
            jobs={JobState(row.state): row.jobs for row in ask(_JOBS)},
            queued_since_ms=ask(_OLDEST).scalar() or 0,
            gpus_sold=ask(_SOLD).scalar_one(),
            settlement_lag_ms=max(0, ask(_BEHIND).scalar() or 0),
            transfers=book.transfer_count(self.connection),
            transfers_sealed=sealed_to(self.connection),
            database_bytes=_bytes(self.connection),
            wal_bytes=_file_bytes(self.connection, "-wal"),
        )


def _bytes(connection: Connection) -> int:
    if connection.dialect.name == "sqlite":
        return _file_bytes(connection, "")
    found: int = connection.exec_driver_sql(_BYTES).scalar_one()
    return found


def _file_bytes(connection: Connection, suffix: str) -> int:
    """Of SQLite's file of this name; 0 where there is none."""
    database = connection.engine.url.database
    if connection.dialect.name != "sqlite" or not database:
        return 0
    file = Path(f"{database}{suffix}")
    return file.stat().st_size if file.exists() else 0
