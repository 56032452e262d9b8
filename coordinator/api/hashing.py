"""Passwords, hashed slowly on purpose: beside the loop, and few at a time, for each takes much memory."""

import asyncio
import base64
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from coordinator.domain.refusal import Refusal, RefusalCode
from runtime.ids import new_key

T = TypeVar("T")
# As many may wait for each that is hashed now; whoever comes then is told to come again.
WAITING_MAX = 16
RETRY_MS = 1_000
_SALT_BYTES, _HASH_BYTES = 16, 32


@dataclass(frozen=True, kw_only=True)
class Cost:
    memory_mib: int
    passes: int
    lanes: int


class Hashing:
    """Argon2id. What it costs stands in each hash, so an older one goes on being good."""

    def __init__(self, cost: Cost, at_once: int) -> None:
        self._hasher = PasswordHasher(
            time_cost=cost.passes,
            memory_cost=cost.memory_mib * 1_024,
            parallelism=cost.lanes,
            hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
        )
        self._nobodys = _nobodys(cost)
        self._threads = ThreadPoolExecutor(at_once, "argon2")
        self._asked, self._asked_max = 0, at_once * (1 + WAITING_MAX)

    async def is_right(self, known: str | None, password: str) -> bool:
        """It takes as long where there is nothing to be right by: who asks can't tell whether there is."""
        right = await self._beside(lambda: self._verify(known or self._nobodys, password))
        return right and known is not None

    async def hash(self, password: str) -> str:
        return await self._beside(lambda: self._hasher.hash(_normal(password)))

    def is_outdated(self, known: str) -> bool:
        """Was it made at another cost than is set now?"""
        return self._hasher.check_needs_rehash(known)

    def _verify(self, known: str, password: str) -> bool:
        try:
            return self._hasher.verify(known, _normal(password))
        except (VerificationError, InvalidHashError):
            return False

    async def _beside(self, work: Callable[[], T]) -> T:
        if self._asked >= self._asked_max:
            raise Refusal(
                RefusalCode.RATE_LIMITED,
                "many people sign in just now; try again in 1 s",
                retry_ms=RETRY_MS,
            )
        self._asked += 1
        done = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # Counted until it is done, not until nobody waits for it: it takes the memory all the same.
        done.add_done_callback(self._count_down)
        return await asyncio.shield(done)

    def _count_down(self, _: object) -> None:
        self._asked -= 1


def _normal(password: str) -> bytes:
    """The same characters, however a keyboard has put them together."""
    return unicodedata.normalize("NFC", password).encode()


def _nobodys(cost: Cost) -> str:
    """A hash in due form that no password is known for."""
    salt, digest = new_key()[:_SALT_BYTES], new_key()[:_HASH_BYTES]
    costs = f"m={cost.memory_mib * 1_024},t={cost.passes},p={cost.lanes}"
    return f"$argon2id$v=19${costs}${_base64(salt)}${_base64(digest)}"


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")
