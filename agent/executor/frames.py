"""Reads the output that a supervisor keeps for the agent."""

import contextlib
import itertools
import os
from pathlib import Path

from agent.domain.attempt import OutputChunk, OutputStream
from agent.executor.supervisor import files as supervisor

_STREAMS = {
    supervisor.STREAM_STDOUT: OutputStream.STDOUT,
    supervisor.STREAM_STDERR: OutputStream.STDERR,
}


class OutputReader:
    """Reads the supervisor's frames from an offset on, through as many files as there are."""

    def __init__(self, folder: Path, offset: int) -> None:
        self._folder = folder
        self._wanted = offset
        self._offset = 0
        self._pending = b""
        self._descriptor: int | None = None
        self.ended = False

    def read(self) -> list[OutputChunk]:
        """What is there now."""
        if self._descriptor is None and not self._open(self._wanted):
            return []
        chunks = self._frames()
        if not chunks and not self.ended and self._has_following():
            # The file can't grow any more once the next one is there; so read it once more, then leave it.
            chunks = self._frames()
            if not chunks:
                self._open(self._offset)
                chunks = self._frames()
        return chunks

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self, offset: int) -> bool:
        """Open the last file that begins at or before the offset."""
        files = [file for file in sorted(self._folder.iterdir()) if int(file.name) <= offset]
        if not files:
            return False
        self.close()
        self._descriptor = os.open(files[-1], os.O_RDONLY)
        self._offset = int(files[-1].name)
        self._pending = b""
        return True

    def _has_following(self) -> bool:
        return any(
            int(file.name) >= self._offset and not self._is_open(file) for file in self._folder.iterdir()
        )

    def _is_open(self, file: Path) -> bool:
        assert self._descriptor is not None
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(file.stat(), os.fstat(self._descriptor))
        return False

    def _frames(self) -> list[OutputChunk]:
        """The next frames of which something is wanted; none where the file ends for now."""
        assert self._descriptor is not None
        chunks: list[OutputChunk] = []
        while not chunks and not self.ended:
            more = os.read(self._descriptor, 4 * supervisor.READ_BYTES)
            if not more:
                break
            self._pending += more
            chunks = self._whole_frames()
        return chunks

    def _whole_frames(self) -> list[OutputChunk]:
        chunks: list[OutputChunk] = []
        position = 0
        header = supervisor.FRAME.size
        while len(self._pending) - position >= header:
            tag, length = supervisor.FRAME.unpack_from(self._pending, position)
            if tag == supervisor.STREAM_END:
                self.ended = True
                break
            if len(self._pending) - position < header + length:
                break
            data = self._pending[position + header : position + header + length]
            position += header + length
            skip = min(max(self._wanted - self._offset, 0), length)
            if skip < length:
                chunks.append(OutputChunk(offset=self._offset + skip, stream=_STREAMS[tag], data=data[skip:]))
            self._offset += length
        self._pending = self._pending[position:]
        return chunks


def discard(folder: Path, offset: int) -> bool:
    """Remove the files that hold nothing from `offset` on. Says whether there were any."""
    removed = False
    for file, following in itertools.pairwise(sorted(folder.iterdir())):
        if int(following.name) <= offset:
            file.unlink(missing_ok=True)
            removed = True
    return removed
