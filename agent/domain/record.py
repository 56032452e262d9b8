"""Lines of the usage journal: one record a line, each with a checksum of its own.

A power cut may leave the last line half written, or as zeros. What can't be read, and all after it, is cut;
the digest chain proves that what remains is what was written.
"""

import json
import zlib
from dataclasses import dataclass

from runtime.evidence import GpuUse, UsageRecord, is_genuine


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What a journal still holds: its records, and how many bytes at its end are of no use."""

    records: tuple[UsageRecord, ...]
    good_bytes: int
    cut_bytes: int


def encode(record: UsageRecord) -> bytes:
    body = json.dumps(
        {
            "number": record.number,
            "start_ms": record.start_ms,
            "end_ms": record.end_ms,
            "gpus": [
                [gpu.gpu_uuid, gpu.utilization_percent, gpu.memory_used_bytes, gpu.energy_mj]
                for gpu in record.gpus
            ],
            "previous_digest": record.previous_digest.hex(),
            "digest": record.digest.hex(),
        },
        separators=(",", ":"),
    ).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode(line: bytes) -> UsageRecord | None:
    """The record of one line without its line feed; None where the line is damaged."""
    checksum, _, body = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        fields = json.loads(body)
        record = UsageRecord(
            number=int(fields["number"]),
            start_ms=int(fields["start_ms"]),
            end_ms=int(fields["end_ms"]),
            gpus=tuple(
                GpuUse(gpu_uuid=uuid, utilization_percent=percent, memory_used_bytes=memory, energy_mj=energy)
                for uuid, percent, memory, energy in fields["gpus"]
            ),
            previous_digest=bytes.fromhex(fields["previous_digest"]),
            digest=bytes.fromhex(fields["digest"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
    return record if is_genuine(record) else None


def recover(raw: bytes) -> Recovered:
    """The longest unbroken beginning of a journal."""
    records: list[UsageRecord] = []
    good_bytes = 0
    while True:
        end = raw.find(b"\n", good_bytes)
        record = decode(raw[good_bytes:end]) if end >= 0 else None
        if record is None or (records and not _follows(record, records[-1])):
            break
        records.append(record)
        good_bytes = end + 1
    return Recovered(records=tuple(records), good_bytes=good_bytes, cut_bytes=len(raw) - good_bytes)


def _follows(record: UsageRecord, before: UsageRecord) -> bool:
    return (
        record.number == before.number + 1
        and record.start_ms == before.end_ms
        and record.previous_digest == before.digest
    )
