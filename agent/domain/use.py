"""What jobs and the machine use, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.domain.gpu import GpuSample


@dataclass(frozen=True, kw_only=True)
class JobUse:
    """What a job's container uses at one moment; None where the kernel does not tell."""

    # Processor time since its start; only grows.
    cpu_ms: int | None = None
    # In use and not to be had back at once; the limit is None where there is none.
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    processes: int | None = None
    # Since its start; only grow.
    read_bytes: int | None = None
    written_bytes: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class JobFigures:
    """How a job goes, for its buyer to see; None where it is not known."""

    # Thousandths of a processor, over the last seconds.
    cpu_milli: int | None = None
    memory_bytes: int | None = None
    gpus: tuple[GpuSample, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HostUse:
    """What the machine uses in all. Counters are since its boot."""

    # (what for, how long).
    cpu_ms: tuple[tuple[str, int], ...]
    load_milli: int
    memory_bytes: int
    memory_available_bytes: int
    # Where jobs live.
    disk_bytes: int
    disk_free_bytes: int
    disk_read_bytes: int | None
    disk_written_bytes: int | None
    network_received_bytes: int
    network_sent_bytes: int


@dataclass(frozen=True, kw_only=True)
class ProcessUse:
    """What the agent itself uses."""

    cpu_ms: int
    memory_bytes: int
    files: int
    started_ms: int


@dataclass(frozen=True, kw_only=True)
class Stock:
    """What is kept here of all attempts, until the coordinator has it."""

    # By their state.
    attempts: Mapping[str, int] = field(default_factory=dict)
    journal_bytes: int = 0
    spool_bytes: int = 0
    records_waiting: int = 0
    output_bytes_waiting: int = 0
    # Of the run that is furthest behind: run time that is in no record yet.
    meter_lag_ms: int = 0


def cpu_milli(before: JobUse, after: JobUse, passed_ms: int) -> int | None:
    """The mean between two looks; None where it can't be said."""
    if before.cpu_ms is None or after.cpu_ms is None or passed_ms <= 0 or after.cpu_ms < before.cpu_ms:
        return None
    return (after.cpu_ms - before.cpu_ms) * 1_000 // passed_ms
