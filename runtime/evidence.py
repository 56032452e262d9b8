"""The digest chain of usage records, as `types.proto` specifies it.

It stands here because the agent makes it, the coordinator checks it, and anybody who holds a bill can
compute it again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GpuUse:
    """One GPU's use during a record; None where the device does not tell."""

    gpu_uuid: str
    utilization_percent: int | None = None
    memory_used_bytes: int | None = None
    energy_mj: int | None = None


@dataclass(frozen=True, kw_only=True)
class UsageRecord:
    """A piece of an attempt's run, [start_ms, end_ms) of run time."""

    number: int
    start_ms: int
    end_ms: int
    gpus: tuple[GpuUse, ...]
    previous_digest: bytes
    digest: bytes


def chain_start(attempt_id: str, epoch: int) -> bytes:
    """What the first record of an attempt names as its predecessor."""
    return hashlib.sha256(f"usance.usage.v1\n{attempt_id}\n{epoch}".encode()).digest()


def record_digest(
    previous_digest: bytes, number: int, start_ms: int, end_ms: int, gpus: Sequence[GpuUse]
) -> bytes:
    text = f"{previous_digest.hex()}\n{number}\n{start_ms}\n{end_ms}\n"
    for gpu in gpus:
        figures = _figure(gpu.utilization_percent), _figure(gpu.memory_used_bytes), _figure(gpu.energy_mj)
        text += f"{gpu.gpu_uuid} {' '.join(figures)}\n"
    return hashlib.sha256(text.encode()).digest()


def make_record(
    previous_digest: bytes, number: int, start_ms: int, end_ms: int, gpus: Sequence[GpuUse]
) -> UsageRecord:
    return UsageRecord(
        number=number,
        start_ms=start_ms,
        end_ms=end_ms,
        gpus=tuple(gpus),
        previous_digest=previous_digest,
        digest=record_digest(previous_digest, number, start_ms, end_ms, gpus),
    )


def is_genuine(record: UsageRecord) -> bool:
    """Does the record's own digest fit its content? (Whether it follows another, the caller compares.)"""
    return record.digest == record_digest(
        record.previous_digest, record.number, record.start_ms, record.end_ms, record.gpus
    )


def _figure(value: int | None) -> str:
    return "-" if value is None else str(value)
