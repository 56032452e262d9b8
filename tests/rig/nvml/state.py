"""What the stand-in for NVIDIA's library answers: written here, read by every call of it.

Keys of a GPU or of a MIG slice are those in CONSUMER_CARD and DATACENTRE_CARD, and `compute_processes` and
`graphics_processes` ("PID:BYTES,PID:BYTES"). A key that is absent is "not supported". Units are NVML's own.
"""

import os
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType

from tests.rig.gpus import Gpu

Value = int | str


class Fault(IntEnum):
    """NVML's return codes that a test may want."""

    NO_PERMISSION = 4
    DRIVER_NOT_LOADED = 9
    TIMEOUT = 10
    LIBRARY_NOT_FOUND = 12
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    LIBRARY_AND_DRIVER_DIFFER = 18
    UNKNOWN = 999


_XID_EVENT = 0x8  # nvmlEventTypeXidCriticalError
_WHOLE = 0xFFFFFFFF  # no slice

CONSUMER_CARD: Mapping[str, Value] = MappingProxyType(
    {
        "name": "NVIDIA GeForce RTX 4090",
        "memory_bytes": 24 << 30,
        "memory_used_bytes": 0,
        "memory_reserved_bytes": 300 << 20,
        "utilization_percent": 0,
        "memory_utilization_percent": 0,
        "power_mw": 20_000,
        "power_limit_mw": 450_000,
        "energy_mj": 1_000_000,
        "temperature_c.0": 40,
        "fan_percent": 30,
        "throttle_bits": 0x1,  # idle
        "pstate": 8,
        "persistence_mode": 1,
        "compute_mode": 0,
        "display_active": 0,
        "compute_capability": "8.9",
        "pcie_generation": 4,
        "pcie_generation_max": 4,
        "pcie_width": 16,
        "pcie_width_max": 16,
        "pcie_replays": 0,
        "clock_mhz.0": 210,
        "clock_mhz.1": 210,
        "clock_mhz.2": 405,
        "event_types": 0x1C,
    }
)

# No fan; error correction, row remapping, MIG and every event that there is.
DATACENTRE_CARD: Mapping[str, Value] = MappingProxyType(
    {
        **{key: value for key, value in CONSUMER_CARD.items() if key != "fan_percent"},
        "name": "NVIDIA A100-SXM4-80GB",
        "memory_bytes": 80 << 30,
        "power_limit_mw": 400_000,
        "compute_capability": "8.0",
        "serial": "1320000000001",
        "ecc_mode": 1,
        # Type (corrected or not), then since when (the driver was loaded, or ever).
        "ecc_errors.0.0": 0,
        "ecc_errors.1.0": 0,
        "ecc_errors.0.1": 0,
        "ecc_errors.1.1": 0,
        "remapped_rows": "0,0,0,0",
        "mig_mode": 0,
        "slices_max": 7,
        "event_types": 0x1F9F,
    }
)


class NvmlState:
    """The state file; every method's effect is whole and there for the next call of the library."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[str, Value] = {
            "driver": "550.54.15",
            "nvml": "12.550.54.15",
            "cuda": 12040,
            "count": 0,
        }
        self._events: list[str] = []
        self._write()

    def add_gpu(self, gpu: Gpu, card: Mapping[str, Value] = CONSUMER_CARD, **values: Value) -> int:
        """Put a GPU into the machine; answers its index."""
        index = int(self._values["count"])
        identity: dict[str, Value] = {
            "uuid": gpu.uuid,
            "minor": gpu.minor,
            "pci_bus_id": f"00000000:{gpu.minor + 1:02X}:00.0",
        }
        self._values["count"] = index + 1
        self._change(f"gpu.{index}", {**card, **identity, **values})
        return index

    def add_slice(self, index: int, slice_index: int, uuid: str, **values: Value) -> None:
        """Cut a MIG slice from a GPU; what it does not say of itself is as its GPU says."""
        instance: dict[str, Value] = {"uuid": uuid, "gpu_instance": slice_index + 1, "compute_instance": 0}
        self._values[f"gpu.{index}.mig_mode"] = 1
        self._change(f"gpu.{index}.slice.{slice_index}", {**instance, **values})

    def set_gpu(self, index: int, **values: Value | None) -> None:
        """Change what a GPU reports; None makes it "not supported"."""
        self._change(f"gpu.{index}", values)

    def set_system(self, **values: Value) -> None:
        """Change `driver`, `nvml`, `cuda`, or the `count` of GPUs that answer at all."""
        self._values.update(values)
        self._write()

    def fail(self, function: str, fault: Fault, *, index: int | None = None) -> None:
        """From now on the NVML function of that name fails, for all GPUs or for one."""
        self._values[_at(index, f"error.{function}")] = int(fault)
        self._write()

    def heal(self, function: str, *, index: int | None = None) -> None:
        del self._values[_at(index, f"error.{function}")]
        self._write()

    def fail_gpu(self, index: int, fault: Fault = Fault.GPU_IS_LOST) -> None:
        """Everything that is asked of this GPU fails; the others go on."""
        self.set_gpu(index, error=int(fault))

    def heal_gpu(self, index: int) -> None:
        self.set_gpu(index, error=None)

    def delay(self, function: str, delay_ms: int) -> None:
        """The NVML function of that name takes so long from now on; 0 ends it."""
        self._values[f"delay_ms.{function}"] = delay_ms
        self._write()

    def delay_gpu(self, index: int, delay_ms: int) -> None:
        self.set_gpu(index, delay_ms=delay_ms)

    def xid(self, index: int, number: int, *, gpu_instance: int = _WHOLE) -> None:
        """The driver reports a critical error of this GPU, or of a slice, once, to those who wait for it."""
        self.event(index, _XID_EVENT, number, gpu_instance)

    def event(self, index: int, event_type: int, data: int, gpu_instance: int = _WHOLE) -> None:
        self._events.append(f"event {len(self._events) + 1} {index} {event_type} {data} {gpu_instance}")
        self._write()

    def _change(self, prefix: str, values: Mapping[str, Value | None]) -> None:
        for key, value in values.items():
            if value is None:
                self._values.pop(f"{prefix}.{key}", None)
            else:
                self._values[f"{prefix}.{key}"] = value
        self._write()

    def _write(self) -> None:
        lines = [f"{key} {value}" for key, value in self._values.items()] + self._events
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in lines))
        os.replace(new, self.path)


def _at(index: int | None, key: str) -> str:
    return key if index is None else f"gpu.{index}.{key}"
