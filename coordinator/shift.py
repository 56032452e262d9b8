"""A coordinator's time at its seat: how it comes to it, keeps it, and leaves it to the next."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from coordinator import handover
from coordinator.handover import COME, HERE, RELIEVE, Peer
from coordinator.loops import repeat
from coordinator.store.seat import Seat

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
LOOK_MS = 20
# For opening a door and saying so at most; it takes milliseconds.
ANSWER_MS = 10_000
KEPT_LOOK_MS = 1_000


class Shift:
    """`stop` ends it, whatever it is about."""

    def __init__(self, data_dir: Path, seat: Seat, upgrade: Callable[[], None], stop: asyncio.Event) -> None:
        self.stop = stop
        # Another coordinator has taken the seat behind our back.
        self.is_lost = False
        self._data_dir = data_dir
        self._seat = seat
        self._upgrade = upgrade
        self._has_seat = False
        self._asked: asyncio.Queue[Peer] = asyncio.Queue()
        self._answering: asyncio.Server | None = None

    @property
    def has_seat(self) -> bool:
        return self._has_seat

    async def take_seat(self, limit_ms: int) -> bool:
        """False: another has it, and did not leave in time."""
        self._has_seat = await self._take()
        for _ in range(0, limit_ms, LOOK_MS):
            if self._has_seat or self.stop.is_set():
                break
            await asyncio.sleep(LOOK_MS / 1_000)
            self._has_seat = await self._take()
        return self._has_seat

    async def begin(self, come_in: Callable[[], Awaitable[None]]) -> bool:
        """Relieve whoever has the seat: agents can come in already, and people when it says so.

        False: asked to stop before it was our turn.
        """
        if not self._has_seat and await self._unless_stopped(self._relieve(come_in)) is None:
            return False
        self._has_seat = True
        await asyncio.to_thread(self._upgrade)
        self._answering = await handover.answer(self._data_dir, self._asked.put_nowait)
        return True

    async def next_one(self) -> Peer | None:
        """Whoever asks to take over; None: asked to stop."""
        return await self._unless_stopped(self._asked.get())

    async def make_way(self, peer: Peer, spread_ms: int) -> bool:
        """Agents were told to come back within `spread_ms`; False: the one they should come to is gone."""
        went = await self._unless_stopped(_see_in(peer, spread_ms))
        return went is not False

    async def keep(self) -> None:
        """A seat that is lost is left at once."""

        async def look() -> None:
            if not await asyncio.to_thread(self._seat.is_kept):
                _LOG.error("another coordinator has taken over: %s", self._seat.holder())
                self.is_lost = True
                self.stop.set()

        await repeat("looking at the seat", look, partial(asyncio.sleep, KEPT_LOOK_MS / 1_000))

    def leave(self) -> None:
        """To be called when all is committed."""
        if self._answering is not None:
            self._answering.close()
        self._seat.leave()

    async def _take(self) -> bool:
        return await asyncio.to_thread(self._seat.take)

    async def _relieve(self, come_in: Callable[[], Awaitable[None]]) -> bool:
        peer: Peer | None = None
        while not await self._take():
            if peer is None and (peer := await handover.find(self._data_dir)) is not None:
                _LOG.info("asks %s to hand over", self._seat.holder())
                await peer.say(RELIEVE)
                if await peer.hears(COME):
                    _LOG.info("agents have come; lets people in")
                    await come_in()
                    await peer.say(HERE)
            await asyncio.sleep(LOOK_MS / 1_000)
        _LOG.info("has taken the seat")
        return True

    async def _unless_stopped(self, doing: Coroutine[Any, Any, T]) -> T | None:
        done, stopped = asyncio.ensure_future(doing), asyncio.ensure_future(self.stop.wait())
        try:
            await asyncio.wait({done, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return await done if done.done() else None
        finally:
            done.cancel()
            stopped.cancel()


async def _see_in(peer: Peer, spread_ms: int) -> bool:
    if not await peer.stays(spread_ms):
        return False
    await peer.say(COME)
    return await peer.hears(HERE, ANSWER_MS)
