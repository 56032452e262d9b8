"""Wall clocks of machines that share a kernel, and are stepped one by one."""

import mmap
import struct
import subprocess
from pathlib import Path

from tests.rig.parts import find_program

_FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-fvisibility=hidden"]


def build_clock(folder: Path) -> Path:
    """Compile into `folder`; raises parts.MissingError where there is no compiler."""
    compiler = find_program("gcc", how="apt-get install gcc libc6-dev")
    library = folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([str(compiler), *_FLAGS, "-o", str(library), str(source)], check=True)
    return library


class SteppedClock:
    """One machine's. Programs that are started with `environment` have it."""

    def __init__(self, library: Path, path: Path) -> None:
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 8)
        self.environment = (f"LD_PRELOAD={library}", f"USANCE_CHAOS_CLOCK={path}")
        self.step_ms = 0

    def step(self, by_ms: int) -> None:
        self.step_ms += by_ms
        self._page[:] = struct.pack("=q", self.step_ms)

    def close(self) -> None:
        self._page.close()
