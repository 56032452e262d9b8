"""What tests of GPUs share."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.domain.gpu import Depth, GpuReading, XidSeen
from agent.gpu.ports import Gpus
from runtime.clock import SystemClock

CLOCK = SystemClock()
ALL = tuple(Depth)
# A log that nobody writes to.
NOTHING = Path("/dev/null")

Story = Callable[[Gpus], Awaitable[None]]


def play(gpus: Gpus, story: Story) -> None:
    async def whole() -> None:
        try:
            await story(gpus)
        finally:
            await gpus.close()

    asyncio.run(whole())


async def read(gpus: Gpus, uuid: str, *depth: Depth) -> GpuReading:
    (reading,) = (await gpus.look({uuid: depth or ALL})).readings
    return reading


async def news(gpus: Gpus, count: int) -> list[XidSeen]:
    """Errors as they come, until there are so many."""
    seen: list[XidSeen] = []
    async with asyncio.timeout(20):
        while len(seen) < count:
            seen += (await gpus.look({})).xids
    return seen
