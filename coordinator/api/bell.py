"""Tells whoever waits that something was committed. A missed ring only means a later look."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from coordinator.store.ports import Held, Rings


class Listener(Protocol):
    def rung(self, held: Held | None) -> None:
        """Of a host, what it should hold since then, where that is known."""
        ...


class _Event(asyncio.Event):
    def rung(self, held: Held | None) -> None:  # noqa: ARG002 - it looks for itself
        self.set()


class Bell:
    """Rung from any thread, heard on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listeners: dict[str, set[Listener]] = {}

    def ring(self, topics: Rings) -> None:
        if topics:
            self._loop.call_soon_threadsafe(self._ring, topics)

    def tells(self, topic: str, listener: Listener) -> None:
        """From now on."""
        self._listeners.setdefault(topic, set()).add(listener)

    @contextmanager
    def hears(self, topic: str, listener: Listener) -> Iterator[None]:
        self.tells(topic, listener)
        try:
            yield
        finally:
            self._listeners[topic].discard(listener)
            if not self._listeners[topic]:
                del self._listeners[topic]

    @contextmanager
    def listen(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the topic is rung; the listener clears it before it looks."""
        event = _Event()
        with self.hears(topic, event):
            yield event

    def _ring(self, topics: Rings) -> None:
        for topic, held in topics.items():
            for listener in self._listeners.get(topic, ()):
                listener.rung(held)


async def wait(event: asyncio.Event, limit_ms: int) -> None:
    """Until it is rung, or for so long."""
    try:
        await asyncio.wait_for(event.wait(), limit_ms / 1000)
    except TimeoutError:
        return
