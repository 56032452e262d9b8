"""What the agent must still know of an attempt when it comes back.

One small file, with a line for each time that something was to be remembered; the last whole line counts. (A
line more costs the disk one flush, a file replaced as a whole two, and another file besides.)
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from agent.domain.attempt import (
    AttemptKey,
    Ending,
    EndReason,
    Isolation,
    JobOrder,
    Network,
    OutputTotals,
    Run,
)
from agent.files import replace_durably, write_all

_FILE = "attempt.json"
# A file with so much of the past begins anew. (Of a long job, every extension is a line.)
_BYTES_MAX = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Memory:
    """One attempt: what was ordered, how far it is paid, what runs, why it shall stop, how it ended."""

    order: JobOrder
    paid_through_ms: int
    stop_reason: EndReason | None = None
    # What a person should know of that reason.
    stop_detail: str = ""
    run: Run | None = None
    ending: Ending | None = None


class MemoryFile:
    """Where an attempt is remembered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # None until we have written a file of our own: the end of an older one may be torn.
        self._file: int | None = None
        self._size = 0
        # Who waits for a save may be cancelled; its thread goes on.
        self._lock = Lock()

    def save(self, memory: Memory) -> None:
        """On the disk when it returns."""
        with self._lock:
            self._save(_line(memory))

    def close(self) -> None:
        with self._lock:
            self._close()

    def _save(self, line: bytes) -> None:
        if self._file is None or self._size + len(line) > _BYTES_MAX:
            self._close()
            path = self.folder / _FILE
            replace_durably(path, line)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            self._size = len(line)
            return
        try:
            write_all(self._file, line)
            os.fdatasync(self._file)
        except OSError:
            self._close()  # there may be half a line
            raise
        self._size += len(line)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _line(memory: Memory) -> bytes:
    run, ending = memory.run, memory.ending
    fields = {
        **vars(memory),
        "order": {**vars(memory.order), "key": memory.order.key._asdict()},
        "run": None if run is None else vars(run),
        "ending": None if ending is None else {**vars(ending), "totals": vars(ending.totals)},
    }
    return json.dumps(fields, default=bytes.hex).encode() + b"\n"


def load(folder: Path) -> Memory | None:
    """None where the agent was killed before it had written anything. Raises ValueError where all is torn."""
    path = folder / _FILE
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # An agent before us may have been killed before its flush, and what we act on must stay.
        os.fdatasync(file)
    finally:
        os.close(file)
    lines = path.read_bytes().splitlines()
    fields = _last_whole(lines)
    return Memory(
        order=_order(fields["order"]),
        paid_through_ms=fields["paid_through_ms"],
        stop_reason=EndReason(fields["stop_reason"]) if fields["stop_reason"] else None,
        # An older agent did not write it.
        stop_detail=fields.get("stop_detail", ""),
        run=Run(**fields["run"]) if fields["run"] else None,
        ending=_ending(fields["ending"]) if fields["ending"] else None,
    )


def _last_whole(lines: list[bytes]) -> dict[str, Any]:
    """Only the last line can be torn: each was on the disk before the next was begun."""
    for line in reversed(lines[-2:]):
        try:
            fields: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        return fields
    raise ValueError("nothing in it is whole")


def _order(fields: Mapping[str, object]) -> JobOrder:
    values = dict(fields)
    return JobOrder(
        **{  # type: ignore[arg-type]  # what `save` wrote
            **values,
            "key": AttemptKey(**values["key"]),  # type: ignore[arg-type]
            "command": tuple(values["command"]),  # type: ignore[arg-type]
            "gpu_uuids": tuple(values["gpu_uuids"]),  # type: ignore[arg-type]
            "isolation_min": Isolation(str(values["isolation_min"])),
            # An older agent did not write these.
            "network": Network(str(values.get("network", Network.NONE))),
            "network_destinations": tuple(values.get("network_destinations", ())),  # type: ignore[arg-type]
        }
    )


def _ending(fields: Mapping[str, object]) -> Ending:
    totals = dict(fields["totals"])  # type: ignore[call-overload]
    return Ending(
        **{  # type: ignore[arg-type]
            **fields,
            "reason": EndReason(str(fields["reason"])),
            "totals": OutputTotals(
                stdout_bytes=totals["stdout_bytes"],
                stderr_bytes=totals["stderr_bytes"],
                stdout_sha256=bytes.fromhex(totals["stdout_sha256"]),
                stderr_sha256=bytes.fromhex(totals["stderr_sha256"]),
            ),
        }
    )
