"""What this machine holds, read from its state folder alone: it works with or without a running agent."""

import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from agent import memory
from agent.domain.attempt import AttemptState
from agent.link import identity as identities
from runtime.text import printable

# struct flock of 64-bit Linux.
_FLOCK = struct.Struct("hhqqi")


@dataclass(frozen=True, kw_only=True)
class AttemptStatus:
    """One attempt as it was last written down."""

    attempt_id: str
    epoch: int
    state: AttemptState
    gpu_uuids: tuple[str, ...]
    detail: str

    @property
    def is_live(self) -> bool:
        """It has its GPUs."""
        return self.state is not AttemptState.ENDED


@dataclass(frozen=True, kw_only=True)
class Status:
    """This machine as the market knows it, and what it holds."""

    # Empty where it is not enrolled.
    host_id: str
    hosts: str
    agent_running: bool
    attempts: tuple[AttemptStatus, ...]

    def as_text(self) -> str:
        if not self.host_id:
            return "not enrolled"
        lines = [
            f"host      {self.host_id}, enrolled at {self.hosts}",
            f"agent     {'running' if self.agent_running else 'not running'}",
            f"attempts  {len(self.attempts)}",
        ]
        lines += [
            f"  {a.attempt_id} epoch {a.epoch}: {a.state}, {' '.join(a.gpu_uuids) or 'no GPU'}"
            + (f" ({printable(a.detail)})" if a.detail else "")
            for a in self.attempts
        ]
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        return {
            "host_id": self.host_id,
            "hosts": self.hosts,
            "agent_running": self.agent_running,
            "attempts": [
                {
                    "attempt_id": a.attempt_id,
                    "epoch": a.epoch,
                    "state": a.state.value,
                    "gpu_uuids": list(a.gpu_uuids),
                    "detail": a.detail,
                }
                for a in self.attempts
            ],
        }


def read(state_dir: Path) -> Status:
    """Raises OSError where the folder can't be read."""
    identity = identities.load(state_dir)
    folder = state_dir / "attempts"
    remembered = [memory.load(path) for path in sorted(folder.iterdir())] if folder.exists() else []
    return Status(
        host_id=identity.host_id if identity else "",
        hosts=identity.hosts if identity else "",
        agent_running=agent_pid(state_dir) is not None,
        attempts=tuple(_attempt(found) for found in remembered if found is not None),
    )


def _attempt(found: memory.Memory) -> AttemptStatus:
    if found.ending is not None:
        state = AttemptState.ENDED
    elif found.run is None:
        state = AttemptState.PREPARING
    else:
        state = AttemptState.STOPPING if found.stop_reason else AttemptState.RUNNING
    detail = f"{found.ending.reason} {found.ending.detail}".strip() if found.ending else ""
    return AttemptStatus(
        attempt_id=found.order.key.attempt_id,
        epoch=found.order.key.epoch,
        state=state,
        gpu_uuids=found.order.gpu_uuids,
        detail=detail,
    )


def agent_pid(state_dir: Path) -> int | None:
    """The agent that works with the folder. Asking does not take its lock."""
    try:
        descriptor = os.open(state_dir / "lock", os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(descriptor)
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else int(pid)
