"""Disks that fill up, fail, and lose what was not synced. They stand in for `os` under the agent's files."""

import errno
import os
from pathlib import Path
from typing import Any

from tests.sim.faults import Dice, Story
from tests.sim.loop import PROCESS


class Disk:
    """One machine's. What the agent writes lies in a folder of its own."""

    def __init__(self, name: str, folder: Path, dice: Dice, story: Story) -> None:
        self.name = name
        self.folder = folder
        self._dice = dice
        self._story = story
        # By file, not by name alone: a name may be another file's by now, which was synced before it got it.
        self._synced: dict[tuple[str, int], int] = {}
        self.full = False
        self.fails = 0.0
        folder.mkdir(parents=True)

    def owns(self, path: str) -> bool:
        return path.startswith(f"{self.folder}/")

    def opened(self, path: str, flags: int) -> None:
        if flags & os.O_DIRECTORY:
            return
        known = _file_of(path)
        if flags & os.O_TRUNC or known not in self._synced:
            self._synced[known] = 0 if flags & os.O_TRUNC else os.path.getsize(path)

    def write(self, file: int, path: str, data: bytes) -> int:
        process = PROCESS.get()
        assert process is not None
        try:
            process.write()
        except BaseException:
            if self._dice.chance(0.5):
                os.write(file, data[: self._dice.rng.randint(0, len(data))])
            raise
        if self.full or self._dice.chance(self.fails):
            kind, code = (
                ("disk full", errno.ENOSPC) if self.full else ("disk write fails half way", errno.EIO)
            )
            self._story.fault(kind, f"{self.name} {Path(path).name}")
            os.write(file, data[: self._dice.rng.randint(0, len(data) // 2)])
            raise OSError(code, kind)
        return os.write(file, data)

    def sync(self, file: int, path: str) -> None:
        process = PROCESS.get()
        assert process is not None
        process.write()
        if self._dice.chance(self.fails):
            self._story.fault("disk sync fails", f"{self.name} {Path(path).name}")
            raise OSError(errno.EIO, "disk sync fails")
        known = _file_of(path)
        if known in self._synced:
            self._synced[known] = os.fstat(file).st_size

    def cut(self, path: str, size: int) -> None:
        known = _file_of(path)
        self._synced[known] = min(size, self._synced.get(known, size))

    def lose_power(self) -> None:
        """What was not synced is there, or in part, or in part as zeros."""
        for known, synced in self._synced.items():
            path = known[0]
            if _file_of(path) != known or (size := os.path.getsize(path)) <= synced:
                continue
            self._story.fault("disk loses an unsynced tail", f"{self.name} {Path(path).name}")
            kept = self._dice.rng.randint(synced, size)
            os.truncate(path, kept)
            if self._dice.chance(0.3):
                os.truncate(path, size)


def _file_of(path: str) -> tuple[str, int]:
    """The file of that name; of number 0, if there is none."""
    try:
        return (path, os.stat(path).st_ino)
    except FileNotFoundError:
        return (path, 0)


class DiskOs:
    """Takes the place of the module `os` where the agent writes."""

    def __init__(self) -> None:
        self.disks: list[Disk] = []
        self._files: dict[int, tuple[Disk, str]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        process = PROCESS.get()
        if process is not None:
            process.write()
        file = os.open(path, flags, mode)
        for disk in self.disks:
            if disk.owns(str(path)):
                self._files[file] = (disk, str(path))
                disk.opened(str(path), flags)
        return file

    def write(self, file: int, data: bytes) -> int:
        disk, path = self._files[file]
        return disk.write(file, path, bytes(data))

    def fsync(self, file: int) -> None:
        disk, path = self._files[file]
        disk.sync(file, path)

    fdatasync = fsync

    def ftruncate(self, file: int, size: int) -> None:
        disk, path = self._files[file]
        disk.cut(path, size)
        os.ftruncate(file, size)

    def close(self, file: int) -> None:
        process = PROCESS.get()
        if process is None or process.alive:
            self._files.pop(file, None)
            os.close(file)

    def close_all(self) -> None:
        for file in self._files:
            os.close(file)
        self._files.clear()
