"""When tokens were used, since it was last written down: not each time, or each read would be a write."""

from collections.abc import Mapping

MINUTE_MS = 60_000


class Uses:
    def __init__(self) -> None:
        self._fresh: dict[bytes, int] = {}
        # As it stands in the database, as far as we know.
        self._written: dict[bytes, int] = {}

    def used(self, digest: bytes, now_ms: int) -> None:
        if now_ms - self._written.get(digest, 0) >= MINUTE_MS:
            self._fresh[digest] = now_ms

    def take(self) -> Mapping[bytes, int]:
        fresh, self._fresh = self._fresh, {}
        # What is older than a minute need not be known.
        newest_ms = max(fresh.values(), default=0)
        known = self._written | fresh
        self._written = {digest: ms for digest, ms in known.items() if newest_ms - ms < MINUTE_MS}
        return fresh
