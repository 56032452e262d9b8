"""Who this machine is. Apart from how it became that: a running agent has no need of the means."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.files import replace_durably


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who this machine is, and how it proves it."""

    host_id: str
    hosts: str
    authority_pem: bytes
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    # From when to when the certificate is good, by our own clock; zeros where nobody said.
    begins_ms: int = 0
    ends_ms: int = 0


def load(state_dir: Path) -> Identity | None:
    """None where this machine is not enrolled."""
    try:
        fields = json.loads((state_dir / "identity.json").read_bytes())
        return Identity(
            host_id=fields["host_id"],
            hosts=fields["hosts"],
            authority_pem=_part(fields, "authority_pem", state_dir / "authority.pem"),
            certificate_pem=_part(fields, "certificate_pem", state_dir / "cert.pem"),
            key_pem=_part(fields, "key_pem", state_dir / "key.pem"),
            begins_ms=fields.get("begins_ms", 0),
            ends_ms=fields.get("ends_ms", 0),
        )
    except FileNotFoundError:
        return None


def save(state_dir: Path, identity: Identity) -> None:
    """All of it in one file, so that key and certificate are always of one another."""
    fields = {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in asdict(identity).items()
    }
    replace_durably(state_dir / "identity.json", json.dumps(fields).encode())


def _part(fields: dict[str, Any], name: str, path: Path) -> bytes:
    """As enrolment left it: in files of their own."""
    return str(fields[name]).encode() if name in fields else path.read_bytes()
