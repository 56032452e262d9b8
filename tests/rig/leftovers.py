"""Take away everything that an engine in a given folder made, whether it was stopped or killed."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tests.rig.parts import FOLDER_PREFIX, wait_until

_CGROUPS = Path("/sys/fs/cgroup")

# What Docker's programs make outside their folders, whatever they are told.
_SHIM_SOCKETS = Path("/run/containerd/s")
_SHARED = (
    _SHIM_SOCKETS,
    _SHIM_SOCKETS.parent,
    Path("/run/docker/plugins"),
    Path("/run/docker"),
    Path("/etc/docker/key.json"),
    Path("/etc/docker"),
)
_HOST_HAD = "host-had"


def note_host(folder: Path) -> None:
    """Write into the engine's folder, before it starts, which of the shared paths are not its own.

    What an engine of ours beside it found is also true for this one; the last of them takes the paths away.
    """
    others = [note.read_text() for note in _notes() if note.parent != folder]
    found = "".join(f"{path}\n" for path in _SHARED if path.exists())
    (folder / _HOST_HAD).write_text(others[0] if others else found)


def remove(folder: Path) -> None:
    """End the engine's processes, then take away its mounts, cgroups and files.

    Of the shared paths, those that the host had before stay; so do those that somebody else uses now.
    """
    for pid in processes(folder):
        _kill(pid)
    wait_until(lambda: not processes(folder), f"the processes of {folder} end")
    for mount in sorted(mounts(folder), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=True)
    wait_until(lambda: all(_removed(cgroup) for cgroup in cgroups(folder)), f"the cgroups of {folder} empty")
    with suppress(FileNotFoundError):  # nothing was started in it, or we were killed just here
        host_had = (folder / _HOST_HAD).read_text().split()
        (folder / _HOST_HAD).unlink()  # before looking at the others', so that of two the later one sees none
        if not _notes():
            _remove_shared(host_had)
    shutil.rmtree(folder, ignore_errors=True)


def processes(folder: Path) -> set[int]:
    """The engine's own programs, and every process of its containers."""
    found = {pid for cgroup in cgroups(folder) for pid in _members(cgroup)}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        is_ours = Path(argv[0]).name in ("dockerd", "containerd", "containerd-shim-runc-v2")
        if is_ours and any(str(folder) in part for part in argv) and _runs(entry):
            found.add(int(entry.name))
    return found


def device_cgroups_are_files() -> bool:
    """Whether the stand-in hook can open a container's device cgroup: on v1 it can, on v2 it is a program."""
    return (_CGROUPS / "devices").is_dir()


def mounts(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [point for line in lines if (point := line.split()[4]).startswith(f"{folder}/")]


def cgroups(folder: Path) -> list[Path]:
    """The engine's cgroups: one per controller on v1, one on v2."""
    return [path for path in (_CGROUPS / folder.name, *_CGROUPS.glob(f"*/{folder.name}")) if path.is_dir()]


def _notes() -> list[Path]:
    """Of every engine of ours on this machine that was started and is not yet removed."""
    return list(Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*/{_HOST_HAD}"))


def _members(cgroup: Path) -> Iterator[int]:
    for name, _, _ in os.walk(cgroup):  # which takes no offence at folders that go while it walks
        with suppress(OSError):
            yield from map(int, Path(name, "cgroup.procs").read_text().split())


def _removed(cgroup: Path) -> bool:
    """Whether it could be removed: the kernel lets go of a dead process a moment after its parent did."""
    with suppress(OSError):
        for name, _, _ in os.walk(cgroup, topdown=False):
            Path(name).rmdir()
    return not cgroup.exists()


def _runs(entry: Path) -> bool:
    try:
        return "\nState:\tZ" not in (entry / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _remove_dead_sockets() -> None:
    """A shim that had to be killed leaves its socket, under a name that says nothing; nobody answers it."""
    for path in _SHIM_SOCKETS.glob("*"):
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue


def _remove_shared(host_had: Sequence[str]) -> None:
    _remove_dead_sockets()
    for path in _SHARED:
        if str(path) not in host_had:
            with suppress(OSError):  # not empty: somebody else's engine came meanwhile
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink(missing_ok=True)
