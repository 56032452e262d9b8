"""The supervisor's clocks. It must not load what `runtime.clock` loads: there may be many of it."""

import time


def boot_ms() -> int:
    """Milliseconds since boot, suspend included: CLOCK_BOOTTIME."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def wall_ms() -> int:
    """Milliseconds since 1970 by the machine's clock, which anybody may set."""
    return time.time_ns() // 1_000_000
