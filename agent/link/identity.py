"""Who this machine is. Apart from how it became that: a running agent has no need of the means."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who this machine is, and how it proves it."""

    host_id: str
    hosts: str
    authority_pem: bytes
    certificate_pem: bytes
    key_pem: bytes


def load(state_dir: Path) -> Identity | None:
    """None where this machine is not enrolled."""
    try:
        fields = json.loads((state_dir / "identity.json").read_bytes())
        return Identity(
            host_id=fields["host_id"],
            hosts=fields["hosts"],
            authority_pem=(state_dir / "authority.pem").read_bytes(),
            certificate_pem=(state_dir / "cert.pem").read_bytes(),
            key_pem=(state_dir / "key.pem").read_bytes(),
        )
    except FileNotFoundError:
        return None
