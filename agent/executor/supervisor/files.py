"""How the agent and a supervisor speak: through files, because files need nobody on the other side.

A folder per run holds

  spec.json      from the agent, once: what to run; removed by the supervisor with its last breath, when
                 nothing of the command is left
  control.json   from the agent, replaced as a whole: paid_through_ms, grace_ms, stop
  wake           a FIFO; a byte in it says that control.json or the backlog of output changed
  lock           held for as long as the supervisor lives
  started.json   from the supervisor: when the command started, and as what
  output/        from the supervisor: frames of output, in files named by the offset of their first byte. The
                 agent removes those it has stored; when too many lie there, reading stops and the command
                 blocks
  exit.json      from the supervisor: how and when the command ended

The agent that started a supervisor also holds the other end of a pipe, its news: a byte says that something
here has changed, and its end that the supervisor is gone. All that is told so can be read here, too.

A frame is one byte of stream (1 standard output, 2 standard error, 0 the end of everything), four bytes of
length, and the bytes.
"""

import json
import os
import struct
from pathlib import Path
from typing import Any

FRAME = struct.Struct(">BI")
STREAM_END = 0
STREAM_STDOUT = 1
STREAM_STDERR = 2
READ_BYTES = 65_536
FILE_BYTES = 1 << 20
FILES_MAX = 8
_LIMIT_REACHED = b"\nusance: this host keeps %d bytes of a job's output; nothing that comes now is kept\n"


def write_whole(path: str | Path, content: dict[str, Any]) -> None:
    """Readers see the old content or the new, never a part."""
    fresh = f"{path}.new"
    file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, json.dumps(content).encode())
    finally:
        os.close(file)
    os.rename(fresh, path)


def read_whole(path: str | Path) -> dict[str, Any] | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        raw = b""
        while more := os.read(file, READ_BYTES):
            raw += more
    finally:
        os.close(file)
    content = json.loads(raw.decode())
    assert isinstance(content, dict)
    return content


class News:
    """The writing end of the pipe to the agent that started us. It may be full, or that agent gone."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def tell(self) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, b"!")
        except OSError:
            return


class Output:
    """The writing end of the output files. It goes on where a supervisor before it stopped."""

    def __init__(self, folder: str, bytes_max: int = 0) -> None:
        """`bytes_max` is the most that is kept, 0 for all. What comes then is read and dropped."""
        self._folder = folder
        self._bytes_max = bytes_max
        self._offset = _written(folder)
        # How many there would be if the agent had removed none: while those are few, nobody need look.
        self._files = 0 if self._offset == 0 else FILES_MAX
        self._begin_file()

    def write(self, stream: int, data: bytes) -> None:
        room = self._bytes_max - self._offset
        if self._bytes_max == 0 or len(data) <= room or stream == STREAM_END:
            self._write(stream, data)
        elif room >= 0:
            # Only once: with these words there is more than the limit, also for a supervisor after us.
            if room:
                self._write(stream, data[:room])
            self._write(STREAM_STDERR, _LIMIT_REACHED % self._bytes_max)

    def _write(self, stream: int, data: bytes) -> None:
        if self._offset - self._file_offset >= FILE_BYTES:
            os.close(self._file)
            self._begin_file()
        frame = FRAME.pack(stream, len(data)) + data
        while frame:
            frame = frame[os.write(self._file, frame) :]
        self._offset += len(data)

    def is_full(self) -> bool:
        """Also when the last look at the command's output filled one file and began the next."""
        if self._files < FILES_MAX:
            return False
        count = len(os.listdir(self._folder))
        return count > FILES_MAX or (count == FILES_MAX and self._offset - self._file_offset >= FILE_BYTES)

    def _begin_file(self) -> None:
        path = f"{self._folder}/{self._offset:020d}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._file_offset = self._offset
        self._files += 1


def _written(folder: str) -> int:
    """Up to which offset there are whole frames; a half one is cut off."""
    names = os.listdir(folder)
    if not names:
        return 0
    last = Path(folder) / max(names)
    raw = last.read_bytes()
    offset, position = int(last.name), 0
    while len(raw) - position >= FRAME.size:
        length = FRAME.unpack_from(raw, position)[1]
        if len(raw) - position < FRAME.size + length:
            break
        position += FRAME.size + length
        offset += length
    os.truncate(last, position)
    return offset
