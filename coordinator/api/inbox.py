"""What the store's threads answer, brought to the loop.

A commit answers hundreds of callers. To wake the loop for each of them, as asyncio does it, costs more than
what they asked for; here it is woken once for all that is there.
"""

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Inbox:
    def __init__(self) -> None:
        self._answered: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._loop_comes = False

    def awaited(self, asked: Future[T]) -> asyncio.Future[T]:
        """For the loop that calls it. Who no longer waits takes back what was asked, if it has not begun."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[T] = loop.create_future()

        def answered(future: Future[T]) -> None:
            self._answered.append((waiting, future))
            if not self._loop_comes and not loop.is_closed():
                self._loop_comes = True
                loop.call_soon_threadsafe(self._deliver)

        waiting.add_done_callback(lambda done: asked.cancel() if done.cancelled() else None)
        asked.add_done_callback(answered)
        return waiting

    def _deliver(self) -> None:
        # What is put in from here on sees that nobody comes, or is still found below.
        self._loop_comes = False
        while self._answered:
            waiting, future = self._answered.popleft()
            if waiting.done() or future.cancelled():
                continue
            error = future.exception()
            if error is None:
                waiting.set_result(future.result())
            else:
                waiting.set_exception(error)
