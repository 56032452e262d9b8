"""The only reader of the operating system's randomness.

Ids are a short prefix that says what they name, and 26 characters of Crockford's base 32: 48 bits of
milliseconds, then 80 random bits. They sort by time and are safe in a path, a label and a shell.
"""

import hashlib
import secrets
import time
import uuid
from collections.abc import Iterable

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
# Two characters at a time: every job and every attempt waits for its id.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS = range(120, -1, -10)


def new_id(prefix: str) -> str:
    """A fresh time-ordered id such as `job_01k8w3zq6f8v6m6v3x0r1c2d3e`."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{prefix}_{_base32(number)}"


def first_id(prefix: str, at_ms: int) -> str:
    """Every id of this prefix that was made earlier sorts before it, and none that was made later."""
    return f"{prefix}_{_base32(at_ms << 80)}"


def new_uuid() -> uuid.UUID:
    """A fresh random id for a request or a transfer."""
    return uuid.UUID(bytes=secrets.token_bytes(16), version=4)


def new_key() -> bytes:
    """256 random bits."""
    return secrets.token_bytes(32)


def derived_uuid(*parts: str | int) -> uuid.UUID:
    """The same parts give the same id for ever: a retry can only repeat what it names.

    Parts are length-prefixed, so ("ab", "c") and ("a", "bc") differ.
    """
    return uuid.UUID(bytes=_digest(parts)[:16], version=5)


def timed_uuid(at_ms: int, *parts: str | int) -> uuid.UUID:
    """As `derived_uuid`, but sorted by a time that is part of what is named: ids made one after the other lie
    together in an index, which so is written at its end and not all over.
    """
    number = int.from_bytes(_digest((at_ms, *parts))[:10], "big")
    # Version 8 of RFC 9562: a layout of one's own. 48 bits of milliseconds come first.
    number = (number & ~(0xF << 76 | 0x3 << 62)) | 0x8 << 76 | 0x2 << 62
    return uuid.UUID(int=(at_ms & (1 << 48) - 1) << 80 | number)


def _digest(parts: Iterable[str | int]) -> bytes:
    raws = [str(part).encode() for part in parts]
    return hashlib.sha256(b"".join([len(raw).to_bytes(4, "big") + raw for raw in raws])).digest()


def _base32(number: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])
