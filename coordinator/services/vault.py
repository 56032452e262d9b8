"""Keeps what nobody may read in the database: sealed with a key that is not in it.

The keys are one a line, in hexadecimal: the first seals, all of them open. A new one comes first; the
coordinator that has both seals anew what is kept (`upkeep`), and then the old ones can go.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime import private
from runtime.ids import new_key
from runtime.private import PrivateError, Source

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
    # Keyed: tells whether two hold the same, and nothing of what that is. By the key that seals, and by those
    # that did before: what was asked before a rotation may be asked again after it.
    digest: bytes
    digests_before: Sequence[bytes] = ()


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
            digest=_compared(key, content),
            digests_before=[_compared(older, content) for older in self.keys[1:]],
        )

    @property
    def name(self) -> str:
        """Of the key that seals; tells nothing of it."""
        return _name(self.keys[0]).hex()

    def is_current(self, box: bytes) -> bool:
        """Is it sealed by the key that seals now?"""
        return box[:_HEAD_BYTES] == _FORM + _name(self.keys[0])

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


def kept(source: Source) -> Vault:
    """The keys that are kept there; a file is made where there is none.

    Raises PrivateError where there are no such keys, or others than the file's owner may read it.
    """
    if not source.command and not source.path.exists():
        private.write(source.path, _lines([new_key()]))
    keys = []
    for number, line in enumerate(source.read().splitlines(), start=1):
        try:
            keys.append(bytes.fromhex(line.decode("ascii")))
        except ValueError:
            keys.append(b"")
        if len(keys[-1]) != KEY_BYTES:
            raise PrivateError(f"{source.name}:{number}: must be {2 * KEY_BYTES} hexadecimal digits")
    if not keys:
        raise PrivateError(f"{source.name}: holds no key")
    return Vault(keys=tuple(keys))


def with_fresh(source: Source) -> None:
    """A new key before those of the file."""
    private.replace(source.path, _lines([new_key(), *kept(source).keys]))


def first_alone(source: Source) -> None:
    """Whatever is sealed with the others can't be read any more."""
    private.replace(source.path, _lines(kept(source).keys[:1]))


def _lines(keys: Sequence[bytes]) -> bytes:
    return "".join(f"{key.hex()}\n" for key in keys).encode("ascii")


def _compared(key: bytes, content: bytes) -> bytes:
    return hmac.new(_derived(key, b"compare"), content, hashlib.sha256).digest()


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.new(key, b"usance " + purpose, hashlib.sha256).digest()


def _name(key: bytes) -> bytes:
    return _derived(key, b"name")[:_NAME_BYTES]
