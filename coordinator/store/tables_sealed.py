"""What of an order nobody may read, sealed; the row goes with the job's end. The key is elsewhere."""

from sqlalchemy import Column, ForeignKey, LargeBinary, Table

from coordinator.store.tables import metadata

job_sealed = Table(
    "job_sealed",
    metadata,
    Column("job_id", ForeignKey("job.id"), primary_key=True),
    Column("box", LargeBinary, nullable=False),
)
