"""GPUs that are not there, for trying things out. Everything about them says SIMULATED."""

import hashlib
import zlib
from collections.abc import Iterable

from agent.domain.gpu import SIMULATED_PREFIX, GpuInfo, GpuSample
from runtime.clock import Clock

_IDLE_WATTS = 30
_BUSY_WATTS = 300
_WAVE_MS = 60_000


class SimulatedGpus:
    """`count` GPUs of one model. `seed` makes their UUIDs this host's own and the same after a restart."""

    driver_version = ""
    cuda_version = ""

    def __init__(self, *, count: int, model: str, vram_bytes: int, seed: str, clock: Clock) -> None:
        self._clock = clock
        self._vram_bytes = vram_bytes
        self._infos = tuple(
            GpuInfo(
                uuid=f"{SIMULATED_PREFIX}{hashlib.sha256(f'{seed}/{index}'.encode()).hexdigest()[:32]}",
                model=model,
                vram_bytes=vram_bytes,
                simulated=True,
                compute_capability="",
            )
            for index in range(count)
        )

    def inventory(self) -> tuple[GpuInfo, ...]:
        return self._infos

    def sample(self, gpu_uuids: Iterable[str]) -> tuple[GpuSample, ...]:
        known = {info.uuid for info in self._infos}
        return tuple(self._sample(uuid) for uuid in gpu_uuids if uuid in known)

    def close(self) -> None:
        """There is nothing to let go of."""

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
        )
