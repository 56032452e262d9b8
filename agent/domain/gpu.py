"""GPUs as values, and the tally of their use over a usage record."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from runtime.evidence import GpuUse

SIMULATED_PREFIX = "SIMULATED-"


@dataclass(frozen=True, kw_only=True)
class GpuInfo:
    """One GPU of this machine, or a slice of one (MIG) that is sold like one."""

    uuid: str
    model: str
    vram_bytes: int
    simulated: bool
    # "8.9"; empty where unknown.
    compute_capability: str
    # The GPU that it is a slice of; empty where it is whole.
    board_uuid: str = ""
    # Where it is on the bus, "00000000:01:00.0"; empty where unknown.
    bus_id: str = ""
    # N of its device node /dev/nvidiaN; of a slice that of its board; None where unknown.
    minor: int | None = None

    @property
    def board(self) -> str:
        """The GPU whose health it shares: its own, or that of which it is a slice."""
        return self.board_uuid or self.uuid


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The GPUs of this machine. Versions are empty without a driver."""

    driver_version: str
    # The highest that the driver takes, "12.4".
    cuda_version: str
    # What can be sold, in a stable order.
    gpus: tuple[GpuInfo, ...]
    # GPUs that are divided: never sold beside their slices, but looked at, since no slice is better than its
    # GPU.
    boards: tuple[GpuInfo, ...] = ()
    # Those that the driver counts and that don't answer, in words.
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GpuSample:
    """What one GPU tells at one moment; None where it does not tell."""

    uuid: str
    utilization_percent: int | None = None
    memory_used_bytes: int | None = None
    # A counter that only grows, until the driver is loaded again.
    energy_mj_total: int | None = None
    power_mw: int | None = None
    temperature_c: int | None = None
    sm_clock_mhz: int | None = None
    # The driver's reasons for a slower clock, one bit each.
    throttle_bits: int | None = None


@dataclass(frozen=True, kw_only=True)
class GpuVitals:
    """What changes slowly; None where the GPU does not tell."""

    ecc_corrected: int | None = None
    # Since the driver was loaded.
    ecc_uncorrected: int | None = None
    rows_remapped: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    # What the driver says would cure the GPU; 0 where it needs nothing.
    recovery_action: int | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_replays: int | None = None
    performance_state: int | None = None
    fan_percent: int | None = None


class GpuFault(StrEnum):
    """What a GPU answers when it does not answer what was asked."""

    LOST = "the driver has lost it"
    RESET_REQUIRED = "it has to be reset"
    GONE = "it is no longer there"
    SILENT = "the driver does not answer for it"
    FAILING = "the driver fails for it"


@dataclass(frozen=True, kw_only=True)
class GpuReading:
    """The answer of one GPU to one look: a fault, or what was asked for and is told."""

    uuid: str
    fault: GpuFault | None = None
    sample: GpuSample | None = None
    # Who computes on it; None where that was not asked or is not told.
    processes: tuple[int, ...] | None = None
    # How much of its memory is in use says nothing of jobs: a desktop draws with it, or it is simulated.
    unsteady: bool = False
    vitals: GpuVitals | None = None


class Depth(StrEnum):
    """How much a look asks for; each costs calls of the driver."""

    SAMPLE = "sample"
    PROCESSES = "processes"
    VITALS = "vitals"


@dataclass(frozen=True, kw_only=True)
class XidSeen:
    """An error number that the driver gave for a GPU, once or more since the last look."""

    uuid: str
    number: int
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Look:
    """Everything that one look at the GPUs brought."""

    readings: tuple[GpuReading, ...] = ()
    xids: tuple[XidSeen, ...] = ()


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
                samples[0] = replace(samples[0], utilization_percent=None, memory_used_bytes=None)
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
