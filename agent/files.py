"""Files that are on the disk, whole, when the call returns."""

import os
from pathlib import Path


def write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file and return when it is on the disk. To replace another one, rename it afterwards."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_all(file, content)
        os.fsync(file)
    finally:
        os.close(file)


def replace_durably(path: Path, content: bytes) -> None:
    """Readers, and we after a power cut, find the old content or the new, never a part."""
    fresh = path.with_name(path.name + ".new")
    write_durably(fresh, content)
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
