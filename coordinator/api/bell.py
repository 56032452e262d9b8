"""Tells whoever waits that something was committed. A missed ring only means a later look."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Listener(Protocol):
    def set(self) -> None:
        """It was rung."""
        ...


class Bell:
    """Rung from any thread, heard on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listeners: dict[str, set[Listener]] = {}

    def ring(self, topics: Iterable[str]) -> None:
        named = list(topics)
        if named:
            self._loop.call_soon_threadsafe(self._ring, named)

    @contextmanager
    def hears(self, topic: str, listener: Listener) -> Iterator[None]:
        self._listeners.setdefault(topic, set()).add(listener)
        try:
            yield
        finally:
            self._listeners[topic].discard(listener)
            if not self._listeners[topic]:
                del self._listeners[topic]

    @contextmanager
    def listen(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the topic is rung; the listener clears it before it looks."""
        event = asyncio.Event()
        with self.hears(topic, event):
            yield event

    def _ring(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for listener in self._listeners.get(topic, ()):
                listener.set()


async def wait(event: asyncio.Event, limit_ms: int) -> None:
    """Until it is rung, or for so long."""
    try:
        await asyncio.wait_for(event.wait(), limit_ms / 1000)
    except TimeoutError:
        return
