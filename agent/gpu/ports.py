"""What the agent asks of whatever knows this machine's GPUs."""

from collections.abc import Iterable
from typing import Protocol

from agent.domain.gpu import GpuInfo, GpuSample


class GpuError(Exception):
    """The GPUs can't be asked. The message says why, to a person."""


class Gpus(Protocol):
    """The GPUs of this machine. Calls may block; the caller keeps them off its event loop."""

    @property
    def driver_version(self) -> str:
        """Empty without a driver."""
        ...

    @property
    def cuda_version(self) -> str:
        """The highest that the driver takes, "12.4"; empty where none tells."""
        ...

    def inventory(self) -> tuple[GpuInfo, ...]:
        """All GPUs, in a stable order. Raises GpuError."""
        ...

    def sample(self, gpu_uuids: Iterable[str]) -> tuple[GpuSample, ...]:
        """What these GPUs tell now; one that can't be asked is left out."""
        ...

    def close(self) -> None:
        """Let go of the driver."""
        ...
