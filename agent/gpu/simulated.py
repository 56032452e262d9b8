"""GPUs that are not there, for trying things out. Everything about them says SIMULATED."""

import hashlib
import zlib
from collections.abc import Collection, Mapping

from agent.domain.gpu import (
    SIMULATED_PREFIX,
    Depth,
    GpuInfo,
    GpuReading,
    GpuSample,
    GpuVitals,
    Inventory,
    Look,
)
from runtime.clock import Clock

_IDLE_WATTS = 30
_BUSY_WATTS = 300
_WAVE_MS = 60_000


class SimulatedGpus:
    """`count` GPUs of one model. `seed` makes their UUIDs this host's own and the same after a restart."""

    restarts = 0

    def __init__(self, *, count: int, model: str, vram_bytes: int, seed: str, clock: Clock) -> None:
        self._clock = clock
        self._vram_bytes = vram_bytes
        self.infos = tuple(
            GpuInfo(
                uuid=f"{SIMULATED_PREFIX}{hashlib.sha256(f'{seed}/{index}'.encode()).hexdigest()[:32]}",
                model=model,
                vram_bytes=vram_bytes,
                simulated=True,
                compute_capability="",
            )
            for index in range(count)
        )

    async def open(self) -> Inventory:
        return Inventory(driver_version="", cuda_version="", gpus=self.infos)

    async def look(self, wanted: Mapping[str, Collection[Depth]]) -> Look:
        known = {info.uuid for info in self.infos}
        asked = [(uuid, depth) for uuid, depth in wanted.items() if uuid in known]
        return Look(readings=tuple(self._read(uuid, depth) for uuid, depth in asked))

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _read(self, uuid: str, depth: Collection[Depth]) -> GpuReading:
        return GpuReading(
            uuid=uuid,
            sample=self._sample(uuid) if Depth.SAMPLE in depth else None,
            processes=() if Depth.PROCESSES in depth else None,
            unsteady=True,
            vitals=GpuVitals(recovery_action=0) if Depth.VITALS in depth else None,
        )

    def _sample(self, uuid: str) -> GpuSample:
        now_ms = self._clock.boot_ms()
        # A triangle between 70 and 95 percent, each GPU at its own place in it.
        phase = (now_ms + zlib.crc32(uuid.encode())) % _WAVE_MS
        percent = 70 + 25 * min(phase, _WAVE_MS - phase) * 2 // _WAVE_MS
        watts = _IDLE_WATTS + (_BUSY_WATTS - _IDLE_WATTS) * 82 // 100
        return GpuSample(
            uuid=uuid,
            utilization_percent=percent,
            memory_used_bytes=self._vram_bytes * percent // 100,
            # Watts for milliseconds are millijoules.
            energy_mj_total=now_ms * watts,
            power_mw=watts * 1_000,
            temperature_c=40 + percent // 3,
            sm_clock_mhz=1_500,
            throttle_bits=0,
        )
