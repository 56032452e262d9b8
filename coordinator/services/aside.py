"""What made a pass fail is left alone for a while, so that nothing else waits for it."""

import logging
from collections.abc import Callable

_LOG = logging.getLogger(__name__)
SET_ASIDE_MS = 60_000


class Aside:
    """`on_aside` is told what kind of thing it was, whenever one is set aside."""

    def __init__(self, on_aside: Callable[[str], None]) -> None:
        self._on_aside = on_aside
        # By id, until when.
        self._until_ms: dict[str, int] = {}

    def put(self, kind: str, name: str, why: str, now_ms: int) -> None:
        if not self.has(name, now_ms):
            self._until_ms[name] = now_ms + SET_ASIDE_MS
            self._on_aside(kind)
            _LOG.error("%s %s is set aside for %d s: %s", kind, name, SET_ASIDE_MS // 1_000, why)

    def has(self, name: str, now_ms: int) -> bool:
        until_ms = self._until_ms.get(name)
        if until_ms is not None and until_ms <= now_ms:
            del self._until_ms[name]
            return False
        return until_ms is not None
