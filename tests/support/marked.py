"""Processes that have to do with a folder."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ASKED_MOST = 10_000  # times; some tenths of a second


def marked_by(folder: Path) -> Iterator[int]:
    """All but ourselves that name it in their arguments or their environment, or work in it."""
    mark = str(folder).encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if mark in _told(entry) or os.readlink(os.fsencode(entry / "cwd")).startswith(mark):
                yield int(entry.name)


def _told(process: Path) -> bytes:
    """The arguments and the environment of a process.

    For a moment in its exec a process has neither yet, and its parent may already go on: it is asked again. A
    kernel thread and a zombie never have them, and no program either.
    """
    for _ in range(_ASKED_MOST):
        if arguments := (process / "cmdline").read_bytes():
            return arguments + (process / "environ").read_bytes()
        os.readlink(process / "exe")  # raises where there is no program
        os.sched_yield()
    return b""
