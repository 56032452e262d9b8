"""What of a job may leave the database when the job is old."""

from dataclasses import dataclass
from enum import StrEnum


class Part(StrEnum):
    """What leaves together."""

    # Its usage, line by line, and its events.
    RECORDS = "records"
    OUTPUT = "output"


@dataclass(frozen=True, kw_only=True)
class Archived:
    """A part of a job that has left. `sha256` is of its lines in the file; without a file it was dropped."""

    job_id: str
    part: Part
    file: str
    sha256: bytes
    lines: int
    events: int
    charge_micro: int
    archived_ms: int
