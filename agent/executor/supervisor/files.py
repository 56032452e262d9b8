"""How the agent and a supervisor speak: through files, because files need nobody on the other side.

A folder per run holds

  spec.json      from the agent, once: what to run
  control.json   from the agent, replaced as a whole: paid_through_ms, grace_ms, stop
  wake           a FIFO; a byte in it says that control.json or the backlog of output changed
  lock           held for as long as the supervisor lives
  started.json   from the supervisor: when the command started, and as what
  output/        from the supervisor: frames of output, in files named by the offset of their first byte. The
                 agent removes those it has stored; when too many lie there, reading stops and the command
                 blocks
  exit.json      from the supervisor: how and when the command ended

A frame is one byte of stream (1 standard output, 2 standard error, 0 the end of everything), four bytes of
length, and the bytes.
"""

import json
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


def write_whole(path: Path, content: dict[str, Any]) -> None:
    """Readers see the old content or the new, never a part."""
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(content), encoding="utf-8")
    fresh.replace(path)


def read_whole(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    assert isinstance(content, dict)
    return content


class Output:
    """The writing end of the output files. It goes on where a supervisor before it stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offset = _written(folder)
        self._begin_file()

    def write(self, stream: int, data: bytes) -> None:
        if self._offset - self._file_offset >= FILE_BYTES:
            self._file.close()
            self._begin_file()
        self._file.write(FRAME.pack(stream, len(data)) + data)
        self._offset += len(data)

    def is_full(self) -> bool:
        """Also when the last look at the command's output filled one file and began the next."""
        count = sum(1 for _ in self._folder.iterdir())
        return count > FILES_MAX or (count == FILES_MAX and self._offset - self._file_offset >= FILE_BYTES)

    def _begin_file(self) -> None:
        path = self._folder / f"{self._offset:020d}"
        self._file = path.open("ab", buffering=0)
        self._file_offset = self._offset


def _written(folder: Path) -> int:
    """Up to which offset there are whole frames; a half one is cut off."""
    files = sorted(folder.iterdir())
    if not files:
        return 0
    raw = files[-1].read_bytes()
    offset, position = int(files[-1].name), 0
    while len(raw) - position >= FRAME.size:
        length = FRAME.unpack_from(raw, position)[1]
        if len(raw) - position < FRAME.size + length:
            break
        position += FRAME.size + length
        offset += length
    with files[-1].open("r+b") as file:
        file.truncate(position)
    return offset
