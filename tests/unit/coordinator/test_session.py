"""One stream of one agent: what an older connection still says is not taken in after a newer one came."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from coordinator.api.arrivals import Arrivals
from coordinator.api.edge import Rules
from coordinator.api.host import _Session
from coordinator.domain.refusal import Refusal, RefusalCode
from usance.v1 import host_pb2 as h


class Nobody:
    """An edge that must not be asked for more than its rules."""

    rules = Rules(beat_interval_ms=1, reconnect_window_ms=1, fee_ppm=0, market_address="", hosts_address="")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"it was asked for {name}")


async def requests() -> AsyncIterator[h.SynchronizeRequest]:
    """A beat that was on its way: what it does not name would have been called forgotten."""
    yield h.SynchronizeRequest(beat=h.Beat(number=7))


def test_a_superseded_session_takes_nothing_more() -> None:
    async def scenario() -> None:
        session = _Session(Nobody(), "host_1", 0, Arrivals())  # type: ignore[arg-type]
        session.supersede()
        with pytest.raises(Refusal) as caught:
            await session.read(requests())
        assert caught.value.code is RefusalCode.SUPERSEDED

    asyncio.run(scenario())


def test_it_tells_so_even_when_its_reader_has_ended() -> None:
    async def scenario() -> None:
        session = _Session(Nobody(), "host_1", 0, Arrivals())  # type: ignore[arg-type]
        session.supersede()
        reader = asyncio.create_task(session.read(requests()))
        await asyncio.wait({reader})
        with pytest.raises(Refusal) as caught:
            await anext(session.messages(reader))
        assert caught.value.code is RefusalCode.SUPERSEDED

    asyncio.run(scenario())
