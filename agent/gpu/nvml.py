"""GPUs as NVIDIA's driver tells of them. The only module that speaks to its library."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

import pynvml

from agent.domain.gpu import GpuInfo, GpuSample
from agent.gpu.ports import GpuError

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# What a seller can do about it. (The library's errors can't be hashed or compared safely; their values can.)
_REMEDIES = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "NVIDIA's driver is not installed; see [simulated_gpus]",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "NVIDIA's driver is installed, but not loaded; reboot or load it",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the driver was replaced while loaded; reboot this machine",
    pynvml.NVML_ERROR_NO_PERMISSION: "this user may not ask the driver",
}


class NvmlGpus:
    """The GPUs of this machine. The library is opened once: opening it often has hung."""

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
            self._driver_version: str = pynvml.nvmlSystemGetDriverVersion()
            self._cuda_version = _cuda_version(_if_told(pynvml.nvmlSystemGetCudaDriverVersion))
        except pynvml.NVMLError as error:
            raise GpuError(_REMEDIES.get(error.value, f"NVIDIA's driver says: {error}")) from error
        self._handles: dict[str, pynvml.c_nvmlDevice_t] = {}

    @property
    def driver_version(self) -> str:
        return self._driver_version

    @property
    def cuda_version(self) -> str:
        return self._cuda_version

    def inventory(self) -> tuple[GpuInfo, ...]:
        found = []
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise GpuError(f"NVIDIA's driver can't count its GPUs: {error}") from error
        for index in range(count):
            try:
                info = self._info(index)
            except pynvml.NVMLError as error:
                log.warning("GPU %d does not answer and is not offered: %s", index, error)
            else:
                if info is not None:
                    found.append(info)
        return tuple(found)

    def sample(self, gpu_uuids: Iterable[str]) -> tuple[GpuSample, ...]:
        samples = []
        for uuid in gpu_uuids:
            try:
                samples.append(_sample(uuid, self._handles[uuid]))
            except (KeyError, pynvml.NVMLError) as error:
                log.debug("GPU %s can't be sampled: %s", uuid, error)
        return tuple(samples)

    def close(self) -> None:
        pynvml.nvmlShutdown()

    def _info(self, index: int) -> GpuInfo | None:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = pynvml.nvmlDeviceGetUUID(handle)
        mode = _if_told(lambda: pynvml.nvmlDeviceGetMigMode(handle)[0])
        if mode == pynvml.NVML_DEVICE_MIG_ENABLE:
            # Its slices would have to be sold one by one, and never beside the whole.
            log.warning("GPU %s is divided into slices and is not offered", uuid)
            return None
        capability = _if_told(lambda: pynvml.nvmlDeviceGetCudaComputeCapability(handle))
        self._handles[uuid] = handle
        return GpuInfo(
            uuid=uuid,
            model=pynvml.nvmlDeviceGetName(handle),
            vram_bytes=pynvml.nvmlDeviceGetMemoryInfo(handle).total,
            simulated=False,
            compute_capability=f"{capability[0]}.{capability[1]}" if capability else "",
        )


def _cuda_version(told: int | None) -> str:
    """The driver tells 12040 for 12.4."""
    return "" if told is None else f"{told // 1_000}.{told % 1_000 // 10}"


def _sample(uuid: str, handle: pynvml.c_nvmlDevice_t) -> GpuSample:
    return GpuSample(
        uuid=uuid,
        utilization_percent=_if_told(lambda: int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
        memory_used_bytes=_if_told(lambda: _memory_used_bytes(handle)),
        energy_mj_total=_if_told(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))),
    )


def _memory_used_bytes(handle: pynvml.c_nvmlDevice_t) -> int:
    """Without what the driver keeps for itself, where it tells that apart."""
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2).used)
    except pynvml.NVMLError as error:
        if error.value != pynvml.NVML_ERROR_FUNCTION_NOT_FOUND:
            raise
    return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)


def _if_told(ask: Callable[[], _T]) -> _T | None:
    """None where this device or driver does not tell; never 0. A device that fails is another thing."""
    try:
        return ask()
    except pynvml.NVMLError as error:
        if error.value in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND):
            return None
        raise
