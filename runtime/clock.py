"""The only reader of the operating system's clocks.

Durations come from `boot_ms`: CLOCK_BOOTTIME counts on through suspend and survives a restart of a
process, so two readings are comparable for as long as `boot_id` is the same. Wall time is for people
and for moments that must outlive a reboot; nothing is charged by it alone.
"""

import asyncio
import ctypes
import time
from pathlib import Path
from typing import Protocol

_ADJTIMEX_BYTES = 208
_NOT_SYNCHRONIZED = 5  # TIME_ERROR


class Clock(Protocol):
    """What a program may ask of time. Tests pass a clock that they move themselves."""

    @property
    def boot_id(self) -> str:
        """Names the boot that `boot_ms` counts from."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC. May jump."""
        ...

    def boot_ms(self) -> int:
        """Milliseconds since boot, suspend included. Never jumps back."""
        ...

    async def sleep_ms(self, duration_ms: int) -> None:
        """Give way for a while."""
        ...


class SystemClock:
    """The real one."""

    def __init__(self) -> None:
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def boot_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    async def sleep_ms(self, duration_ms: int) -> None:
        await asyncio.sleep(duration_ms / 1000)


def utc_offset_minutes(wall_ms: int) -> int:
    """How far this machine's own time is ahead of UTC at a moment."""
    return time.localtime(wall_ms / 1_000).tm_gmtoff // 60


def clock_synchronized() -> bool | None:
    """As the kernel knows it; None where it does not say."""
    answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_ADJTIMEX_BYTES))
    return None if answer < 0 else answer != _NOT_SYNCHRONIZED
