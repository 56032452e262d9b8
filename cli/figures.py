"""How a running job goes, as its host said last; None where the host does not know."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GpuFigures:
    gpu_uuid: str
    utilization_percent: int | None
    memory_used_bytes: int | None
    power_mw: int | None
    temperature_c: int | None


@dataclass(frozen=True, kw_only=True)
class JobFigures:
    cpu_milli: int | None
    memory_bytes: int | None
    gpus: tuple[GpuFigures, ...]

    @property
    def utilization_percent(self) -> int | None:
        """Over all GPUs that say so."""
        known = [gpu.utilization_percent for gpu in self.gpus if gpu.utilization_percent is not None]
        return sum(known) // len(known) if known else None

    @property
    def gpu_memory_bytes(self) -> int | None:
        known = [gpu.memory_used_bytes for gpu in self.gpus if gpu.memory_used_bytes is not None]
        return sum(known) if known else None

    @property
    def power_mw(self) -> int | None:
        known = [gpu.power_mw for gpu in self.gpus if gpu.power_mw is not None]
        return sum(known) if known else None

    @property
    def temperature_c(self) -> int | None:
        """Of the warmest."""
        return max((gpu.temperature_c for gpu in self.gpus if gpu.temperature_c is not None), default=None)
