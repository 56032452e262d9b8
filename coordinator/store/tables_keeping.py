"""What was done with the database as a whole: restored from a backup, relieved of what is old."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, LargeBinary, String, Table

from coordinator.domain.archive import Part
from coordinator.store.tables_base import metadata, one_of

# Each time that the database was restored from a backup.
restoration = Table(
    "restoration",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(36), nullable=False),
    Column("restored_ms", BigInteger, nullable=False),
    Column("known_ms", BigInteger, nullable=False),
    Column("event_number", BigInteger, nullable=False),
    Column("events_left_out", BigInteger, nullable=False),
    Column("transfer_seq", BigInteger, nullable=False),
    Column("seal_hash", LargeBinary(32), nullable=False),
    Column("jobs", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
)

# What of a job went into a file of the archive, or was dropped when its time was over (no file). Rows of what
# is named here may be deleted, and no others: see `store/triggers.py`.
archived = Table(
    "archived",
    metadata,
    Column("job_id", ForeignKey("job.id"), primary_key=True),
    Column("part", String(16), CheckConstraint(one_of("part", Part), name="part"), primary_key=True),
    Column("file", String(255), nullable=False),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("lines", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("charge_micro", BigInteger, nullable=False),
    Column("archived_ms", BigInteger, nullable=False),
)
