"""Keeps what nobody may read in the database: sealed with a key that is not in it.

The key's file has one key a line, in hexadecimal: the first seals, all of them open. To rotate, put a new
line first, and take the old one out when the jobs of its time have ended.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.ids import new_key

KEY_BYTES = 32
_FORM = b"\x01"
_NAME_BYTES, _NONCE_BYTES = 8, 12
_HEAD_BYTES = len(_FORM) + _NAME_BYTES


class UnreadableError(Exception):
    """It was sealed with a key that we do not have, for somebody else, or was changed since."""


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """What may be stored."""

    box: bytes
    # Keyed: tells whether two hold the same, and nothing of what that is.
    digest: bytes


@dataclass(frozen=True, kw_only=True)
class Vault:
    keys: Sequence[bytes] = field(repr=False)

    def seal(self, content: bytes, owner: str) -> Sealed:
        """Nobody else's box can take its place: it opens for its owner alone."""
        key = self.keys[0]
        nonce = new_key()[:_NONCE_BYTES]
        sealed = AESGCM(_derived(key, b"seal")).encrypt(nonce, content, owner.encode())
        return Sealed(
            box=_FORM + _name(key) + nonce + sealed,
            digest=hmac.new(_derived(key, b"compare"), content, hashlib.sha256).digest(),
        )

    def open(self, box: bytes, owner: str) -> bytes:
        """Raises UnreadableError."""
        nonce, sealed = box[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES], box[_HEAD_BYTES + _NONCE_BYTES :]
        for key in self.keys:
            if box[:_HEAD_BYTES] == _FORM + _name(key):
                try:
                    return AESGCM(_derived(key, b"seal")).decrypt(nonce, sealed, owner.encode())
                except (InvalidTag, ValueError) as error:
                    raise UnreadableError("it was changed, or is somebody else's") from error
        raise UnreadableError("it was sealed with a key that is not here")


def fresh() -> Vault:
    return Vault(keys=(new_key(),))


def kept(path: Path) -> Vault:
    """The keys of this file, which is made where there is none.

    Raises ValueError where it is no such file, or others than its owner may read it.
    """
    if not path.exists():
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(f"{new_key().hex()}\n", encoding="ascii")
    if path.stat().st_mode & 0o077:
        raise ValueError(f"{path}: others may read it; chmod 600 it")
    keys = []
    for number, line in enumerate(path.read_text(encoding="ascii").splitlines(), start=1):
        try:
            keys.append(bytes.fromhex(line))
        except ValueError:
            keys.append(b"")
        if len(keys[-1]) != KEY_BYTES:
            raise ValueError(f"{path}:{number}: must be {2 * KEY_BYTES} hexadecimal digits")
    if not keys:
        raise ValueError(f"{path}: holds no key")
    return Vault(keys=tuple(keys))


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.new(key, b"usance " + purpose, hashlib.sha256).digest()


def _name(key: bytes) -> bytes:
    return _derived(key, b"name")[:_NAME_BYTES]
