"""What a backup says of itself."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORM = 1
MANIFEST_NAME = "manifest.json"
DATABASE_NAME = "usance.db"
_LOOK_BYTES = 1 << 20


class KeepingError(ValueError):
    """It was not done; the message says why, and what would be right."""


class DamagedError(Exception):
    """What was to be kept or brought back is not what it should be."""


@dataclass(frozen=True, kw_only=True)
class PartOf:
    """A file in a backup."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`head` is the hash that a seal of all transfers would have; `keys` is the digest of the other file."""

    form: int = FORM
    made_ms: int
    made: str
    program: str
    revision: str
    known_ms: int
    restorations: int
    transfers: int
    sealed_to: int
    seal: str
    head: str
    violations: int
    counts: Mapping[str, int]
    parts: Mapping[str, PartOf] = field(default_factory=dict)
    # Names and digest of the file beside it; empty where none was made.
    keys: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> Manifest:
    """Raises DamagedError, and KeepingError for one of a later program."""
    try:
        fields: dict[str, Any] = json.loads(text)
        form = fields["form"]
        if form != FORM:
            raise KeepingError(
                f"the backup has form {form}, and this program knows form {FORM}: use a newer one"
            )
        parts = {name: PartOf(**part) for name, part in fields.pop("parts").items()}
        return Manifest(**fields, parts=parts)
    except KeepingError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"its manifest can't be read: {error}") from None


def part_of(path: Path) -> PartOf:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while data := file.read(_LOOK_BYTES):
            digest.update(data)
            size += len(data)
    return PartOf(bytes=size, sha256=digest.hexdigest())
