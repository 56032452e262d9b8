"""What the agent asks of whatever knows this machine's GPUs."""

from collections.abc import Collection, Mapping
from typing import Protocol

from agent.domain.gpu import Depth, Inventory, Look


class GpuError(Exception):
    """The GPUs can't be asked. The message says why, to a person."""


class Gpus(Protocol):
    """The GPUs of this machine. No call blocks the event loop, or waits for ever."""

    @property
    def restarts(self) -> int:
        """How often whatever asks the driver had to be started again."""
        ...

    async def open(self) -> Inventory:
        """What is here. To be called once, before anything else. Raises GpuError."""
        ...

    async def look(self, wanted: Mapping[str, Collection[Depth]]) -> Look:
        """What these GPUs tell now, as deep as is asked for each, and what has happened since the last look.

        One that can't be asked is left out, or its reading says what is wrong with it. Never raises.
        """
        ...

    async def close(self) -> None:
        """Let go of the driver."""
        ...
