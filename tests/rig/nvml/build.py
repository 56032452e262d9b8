"""Compile the stand-in for NVIDIA's library, and let programs find it."""

import ctypes
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.rig.nvml.state import NvmlState
from tests.rig.parts import find_program

SONAME = "libnvidia-ml.so.1"
_FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-fvisibility=hidden"]


@dataclass(frozen=True, kw_only=True)
class NvmlStub:
    """The compiled library and the state it answers from."""

    library: Path
    state: NvmlState

    def env(self) -> dict[str, str]:
        """What makes a program started with it find library and state: the loader reads its path once."""
        folders = [str(self.library.parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders), "USANCE_NVML_STATE": str(self.state.path)}

    def load(self) -> None:
        """Make it the library that this very process finds from now on; it cannot be unloaded.

        The loader takes a library that it already has under the name asked for. The state's path is read from
        the environment at every call, so the caller sets USANCE_NVML_STATE.
        """
        ctypes.CDLL(str(self.library))


def build_library(folder: Path) -> Path:
    """Compile into `folder`; raises parts.MissingError where there is no compiler."""
    compiler = find_program("gcc", how="apt-get install gcc libc6-dev")
    sources = [str(path) for path in sorted(Path(__file__).parent.glob("*.c"))]
    library = folder / SONAME
    arguments = [*_FLAGS, f"-Wl,-soname,{SONAME}", "-o", str(library), *sources, "-lpthread"]
    subprocess.run([str(compiler), *arguments], check=True)
    return library
