"""Clocks of machines: they drift, their wall time jumps, and a reboot begins them anew."""

import asyncio
from random import Random

from tests.sim.loop import VirtualLoop

EPOCH_MS = 1_800_000_000_000


class SimClock:
    """A machine's clock, as `runtime.clock.Clock`. `rate` is 1 for a good one."""

    def __init__(self, name: str, loop: VirtualLoop, rng: Random, drift_ppm_max: int) -> None:
        self._name = name
        self._loop = loop
        self.rate = 1 + rng.randint(-drift_ppm_max, drift_ppm_max) / 1_000_000
        self._boots = 1
        self._booted_s = loop.time() - rng.randint(10, 100_000)
        self.wall_offset_ms = rng.randint(-3_000, 3_000)

    @property
    def boot_id(self) -> str:
        return f"{self._name}-boot-{self._boots}"

    def boot_ms(self) -> int:
        return self.boot_ms_at(self._loop.time())

    def boot_ms_at(self, moment_s: float) -> int:
        return int((moment_s - self._booted_s) * 1_000 * self.rate + 1e-6)

    def wall_ms(self) -> int:
        return EPOCH_MS + self.wall_offset_ms + int(self._loop.time() * 1_000 * self.rate + 1e-6)

    async def sleep_ms(self, duration_ms: int) -> None:
        await asyncio.sleep((duration_ms + 0.01) / 1_000 / self.rate if duration_ms > 0 else 0)

    def reboot(self) -> None:
        self._boots += 1
        self._booted_s = self._loop.time() - 5

    def jump(self, by_ms: int) -> None:
        self.wall_offset_ms += by_ms
