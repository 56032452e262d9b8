"""Secrets of jobs, as files in memory: of the host's own, which go with its power and touch no disk.

The container gets its folder read-only. It is there before the container is, needs no process that goes on
beside it, and so outlives an agent that is restarted; whoever finds a folder of nobody's removes it.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from threading import Lock

from agent.domain.attempt import AttemptKey, EndReason
from agent.executor.ports import StartError
from agent.files import write_all

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_MOUNTS = Path("/proc/self/mounts")
# There wherever Linux is, and the engine sees the same.
MEMORY = Path("/dev/shm")  # noqa: S108 - folders in it are made with care


class SecretFiles:
    """Those of one host's jobs."""

    def __init__(self, memory: Path, host_id: str) -> None:
        self._memory = memory
        self._folder = memory / f"usance-{host_id}"
        # The folder goes with the last that is in it.
        self._lock = Lock()

    def write(self, key: AttemptKey, files: Mapping[str, bytes]) -> Path:
        """The folder that they are in. Raises StartError where this machine can't keep them."""
        kind = file_system(self._memory, _MOUNTS.read_text(encoding="utf-8"))
        if kind not in _IN_MEMORY:
            raise StartError(EndReason.START_FAILED, f"the host keeps no secrets in memory, but on {kind}")
        self.remove(key)
        folder = self._folder / str(key)
        try:
            with self._lock:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                _must_be_ours(self._folder)
                folder.mkdir()
            # Whoever the job is on this host: with user namespaces another. Nobody else gets here.
            folder.chmod(0o755)
            for name, content in files.items():
                _write(folder / name, content)
        except OSError as error:
            self.remove(key)
            raise StartError(EndReason.START_FAILED, f"the host can't keep secrets: {error}") from error
        return folder

    def remove(self, key: AttemptKey) -> None:
        with self._lock, contextlib.suppress(OSError):
            shutil.rmtree(self._folder / str(key), ignore_errors=True)
            self._folder.rmdir()

    def held(self) -> frozenset[AttemptKey]:
        if not self._folder.is_dir():
            return frozenset()
        found = (path.name.rpartition(".") for path in self._folder.iterdir())
        return frozenset(
            AttemptKey(attempt_id=attempt_id, epoch=int(epoch))
            for attempt_id, _, epoch in found
            if attempt_id and epoch.isdigit()
        )


def file_system(path: Path, mounts: str) -> str:
    """The kind of the file system that a path is on, by the kernel's list of mounts."""
    found, length = "", -1
    for line in mounts.splitlines():
        _, where, kind = line.split(" ")[:3]
        # The last of several at the same place covers the others.
        if len(where) >= length and path.is_relative_to(where):
            found, length = kind, len(where)
    return found


def _must_be_ours(path: Path) -> None:
    """Everybody may make folders in the memory: one of somebody else's would be theirs to read."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(f"{path} is not this agent's own")


def _write(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    try:
        os.fchmod(file, 0o444)
        write_all(file, content)
    finally:
        os.close(file)
