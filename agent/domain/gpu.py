"""GPUs as values, and the tally of their use over a usage record."""

from collections.abc import Iterable
from dataclasses import dataclass

from runtime.evidence import GpuUse

SIMULATED_PREFIX = "SIMULATED-"


@dataclass(frozen=True, kw_only=True)
class GpuInfo:
    """One GPU of this machine."""

    uuid: str
    model: str
    vram_bytes: int
    simulated: bool
    # "8.9"; empty where unknown.
    compute_capability: str


@dataclass(frozen=True, kw_only=True)
class GpuSample:
    """What one GPU tells at one moment; None where it does not tell."""

    uuid: str
    utilization_percent: int | None
    memory_used_bytes: int | None
    # A counter that only grows, until the driver is loaded again.
    energy_mj_total: int | None


def is_simulated(gpu_uuid: str) -> bool:
    return gpu_uuid.startswith(SIMULATED_PREFIX)


class GpuTally:
    """Adds up samples of an attempt's GPUs until a record is cut, then begins anew."""

    def __init__(self, gpu_uuids: Iterable[str]) -> None:
        self._samples: dict[str, list[GpuSample]] = {uuid: [] for uuid in gpu_uuids}

    def add(self, samples: Iterable[GpuSample]) -> None:
        for sample in samples:
            if sample.uuid in self._samples:
                self._samples[sample.uuid].append(sample)

    def take(self) -> tuple[GpuUse, ...]:
        """The use since the last take, for each GPU in the order's own order."""
        uses = tuple(_use(uuid, samples) for uuid, samples in self._samples.items())
        for samples in self._samples.values():
            # The last reading of the energy counter is where the next record begins.
            del samples[:-1]
            if samples:
                samples[0] = GpuSample(
                    uuid=samples[0].uuid,
                    utilization_percent=None,
                    memory_used_bytes=None,
                    energy_mj_total=samples[0].energy_mj_total,
                )
        return uses

    def unknown(self) -> tuple[GpuUse, ...]:
        """The use of a time in which nobody looked."""
        return tuple(GpuUse(gpu_uuid=uuid) for uuid in self._samples)


def _use(uuid: str, samples: list[GpuSample]) -> GpuUse:
    percents = [s.utilization_percent for s in samples if s.utilization_percent is not None]
    memories = [s.memory_used_bytes for s in samples if s.memory_used_bytes is not None]
    energies = [s.energy_mj_total for s in samples if s.energy_mj_total is not None]
    grew = len(energies) > 1 and energies == sorted(energies)
    return GpuUse(
        gpu_uuid=uuid,
        utilization_percent=(2 * sum(percents) + len(percents)) // (2 * len(percents)) if percents else None,
        memory_used_bytes=max(memories, default=None),
        energy_mj=energies[-1] - energies[0] if grew else None,
    )
