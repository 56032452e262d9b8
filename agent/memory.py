"""What the agent must still know of an attempt when it comes back: one small file, replaced as a whole."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.domain.attempt import AttemptKey, Ending, EndReason, Isolation, JobOrder, OutputTotals, Run
from agent.files import replace_durably

_FILE = "attempt.json"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """One attempt: what was ordered, how far it is paid, what runs, why it shall stop, how it ended."""

    order: JobOrder
    paid_through_ms: int
    stop_reason: EndReason | None = None
    # What a person should know of that reason.
    stop_detail: str = ""
    # When the start was about to be asked for: a run can't have begun before.
    start_asked_boot_ms: int | None = None
    run: Run | None = None
    ending: Ending | None = None


def save(folder: Path, memory: Memory) -> None:
    """On the disk when it returns."""
    replace_durably(folder / _FILE, json.dumps(asdict(memory), default=bytes.hex).encode())


def load(folder: Path) -> Memory | None:
    """None where the agent was killed before it had written anything."""
    try:
        fields = json.loads((folder / _FILE).read_bytes())
    except FileNotFoundError:
        return None
    return Memory(
        order=_order(fields["order"]),
        paid_through_ms=fields["paid_through_ms"],
        stop_reason=EndReason(fields["stop_reason"]) if fields["stop_reason"] else None,
        # An older agent did not write it.
        stop_detail=fields.get("stop_detail", ""),
        start_asked_boot_ms=fields["start_asked_boot_ms"],
        run=Run(**fields["run"]) if fields["run"] else None,
        ending=_ending(fields["ending"]) if fields["ending"] else None,
    )


def _order(fields: Mapping[str, object]) -> JobOrder:
    values = dict(fields)
    return JobOrder(
        **{  # type: ignore[arg-type]  # what `save` wrote
            **values,
            "key": AttemptKey(**values["key"]),  # type: ignore[arg-type]
            "command": tuple(values["command"]),  # type: ignore[arg-type]
            "gpu_uuids": tuple(values["gpu_uuids"]),  # type: ignore[arg-type]
            "isolation_min": Isolation(str(values["isolation_min"])),
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
