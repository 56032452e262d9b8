"""Keys that nobody else may read: in a file of ours, or printed by a command of the operator's."""

import ctypes
import errno
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# For a command that asks a vault across a network; no key is longer.
PRINTS_WITHIN_S = 30.0
BYTES_MAX = 65_536
_PR_SET_DUMPABLE = 4


class PrivateError(ValueError):
    """A key can't be had, or is no secret; the message says why, and never what was read."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a key is kept: in this file, unless there is a command that prints it."""

    path: Path
    command: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For messages."""
        return f"what {self.command[0]} prints" if self.command else str(self.path)

    def read(self) -> bytes:
        return printed(self.command) if self.command else read(self.path)


def read(path: Path) -> bytes:
    """A file that only its owner can read; FileNotFoundError where there is none."""
    with path.open("rb") as file:
        # Of what was opened, and not of what may have taken its place.
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise PrivateError(f"{path}: others may read it; chmod 600 it")
        return _bounded(file.read(BYTES_MAX + 1), str(path))


def write(path: Path, content: bytes) -> None:
    """Readable by its owner from the first byte on; refuses to replace what is there."""
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(content)


def replace(path: Path, content: bytes) -> None:
    """The new one whole, or the old one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600, exist_ok=False)
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def move(path: Path, target: Path) -> None:
    """As one step, or from one file system to another."""
    try:
        path.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        replace(target, read(path))
        path.unlink()


def printed(command: Sequence[str]) -> bytes:
    """What the command writes to its standard output; no shell is between. It complains where we do."""
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise PrivateError(f"{command[0]}: {error.strerror}") from None
    assert child.stdout is not None, "it is a pipe"
    late = threading.Event()

    def give_up() -> None:
        late.set()
        _kill(child)

    timer = threading.Timer(PRINTS_WITHIN_S, give_up)
    timer.start()
    try:
        with child.stdout:
            content = child.stdout.read(BYTES_MAX + 1)
        if len(content) > BYTES_MAX:
            _kill(child)
        status = child.wait()
    finally:
        timer.cancel()
        _kill(child)
    if late.is_set():
        raise PrivateError(f"{command[0]}: did not end within {PRINTS_WITHIN_S:.0f} s")
    _bounded(content, command[0])
    if status != 0 or not content:
        raise PrivateError(f"{command[0]}: ended with status {status} and printed {len(content)} bytes")
    return content


def keep_out_of_dumps() -> None:
    """What passes through our memory is left in no core, not even where the kernel gives cores to a program,
    which no limit of size holds up; and no debugger of our own user's reads it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """With whatever it has started and left behind."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _bounded(content: bytes, name: str) -> bytes:
    if len(content) > BYTES_MAX:
        raise PrivateError(f"{name}: more than {BYTES_MAX} bytes are no key")
    return content
