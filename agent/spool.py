"""What an attempt used and wrote, kept on disk until the coordinator has stored it.

Both files only ever grow at the end, and nothing is shown to a reader before it is safe on the disk: what was
sent once can be sent again after a power cut.
"""

import asyncio
import hashlib
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from agent.domain import record as journal_line
from agent.domain.attempt import AttemptKey, OutputChunk, OutputStream, OutputTotals
from agent.files import replace_durably, write_all
from runtime.evidence import GpuUse, UsageRecord, chain_start, make_record

log = logging.getLogger(__name__)

# Acknowledged lines stay for a week of minutes: a coordinator that was restored from a backup wants them
# again. So many beyond that, and the journal is written anew without the oldest.
KEPT_RECORDS, _COMPACT_RECORDS = 10_080, 512

_FRAME = struct.Struct(">BII")
_TAGS = {OutputStream.STDOUT: 1, OutputStream.STDERR: 2}
_STREAMS = {tag: stream for stream, tag in _TAGS.items()}
CHUNK_BYTES_MAX = 65_536
_INDEX_BYTES = 1 << 20


class UsageJournal:
    """The usage records of one attempt."""

    def __init__(self, path: Path, key: AttemptKey) -> None:
        self._path = path
        raw = path.read_bytes() if path.exists() else b""
        recovered = journal_line.recover(raw)
        if recovered.cut_bytes:
            log.warning("the usage journal of %s ended in %d damaged bytes; cut", key, recovered.cut_bytes)
        self._records = deque(recovered.records)
        self._lines = len(self._records)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = recovered.good_bytes
        os.ftruncate(self._file, self._size)
        _keep(self._file, self._size)
        self._last_digest = chain_start(key.attempt_id, key.epoch)
        self.number_last = self.end_ms = self._acknowledged = 0
        if self._records:
            last = self._records[-1]
            self._last_digest, self.number_last, self.end_ms = last.digest, last.number, last.end_ms
            self._acknowledged = self._records[0].number - 1
        self._lock = asyncio.Lock()

    @property
    def number_acknowledged(self) -> int:
        return self._acknowledged

    @property
    def size_bytes(self) -> int:
        return self._size

    @property
    def waiting(self) -> int:
        """Records that are not known to be stored."""
        return self.number_last - self._acknowledged

    async def append(self, pieces: Sequence[tuple[int, int, Sequence[GpuUse]]]) -> None:
        """Add a record for each (start_ms, end_ms, use); they are shown when they are on the disk.

        Whoever waits for it may be cancelled; what was begun is finished.
        """
        await asyncio.shield(self._append(pieces))

    async def _append(self, pieces: Sequence[tuple[int, int, Sequence[GpuUse]]]) -> None:
        async with self._lock:
            digest, number, reached_ms = self._last_digest, self.number_last, self.end_ms
            records: list[UsageRecord] = []
            for start_ms, end_ms, gpus in pieces:
                if start_ms != reached_ms:
                    raise ValueError(f"a record from {start_ms} ms can't follow one up to {reached_ms} ms")
                number += 1
                record = make_record(digest, number, start_ms, end_ms, gpus)
                records.append(record)
                digest, reached_ms = record.digest, end_ms
            lines = b"".join(journal_line.encode(record) for record in records)
            await asyncio.to_thread(self._write, lines)
            self._size += len(lines)
            self._records.extend(records)
            self._lines += len(records)
            self._last_digest, self.number_last, self.end_ms = digest, number, reached_ms

    def _write(self, lines: bytes) -> None:
        # Where the last good line ends: a write that failed half-way, on a full disk, is written over.
        os.lseek(self._file, self._size, os.SEEK_SET)
        write_all(self._file, lines)
        os.fdatasync(self._file)

    def after(self, number: int, count_max: int) -> tuple[UsageRecord, ...]:
        """The records that follow the given one."""
        first = self._records[0].number if self._records else 0
        skip = max(0, number + 1 - first)
        return tuple(self._records[index] for index in range(skip, min(len(self._records), skip + count_max)))

    async def acknowledge(self, number: int) -> None:
        """Records up to this one may go. The last stays, because the next one is chained to it."""
        self._acknowledged = max(self._acknowledged, min(number, self.number_last))
        while len(self._records) > 1 and self._records[0].number <= self._acknowledged:
            self._records.popleft()
        if self._lines - len(self._records) >= KEPT_RECORDS + _COMPACT_RECORDS:
            async with self._lock:
                keeps = len(self._records) + KEPT_RECORDS
                self._size = await asyncio.to_thread(self._compact, keeps)
                self._lines = keeps

    async def take_back(self, number: int) -> None:
        """The coordinator has no more than this, whatever it said: what the disk has is to be sent again."""
        async with self._lock:
            if number < self._acknowledged:
                raw = await asyncio.to_thread(self._path.read_bytes)
                self._records = deque(journal_line.recover(raw).records)
                self._acknowledged = max(number, self._records[0].number - 1) if self._records else 0
        await self.acknowledge(number)

    async def close(self) -> None:
        async with self._lock:
            os.close(self._file)

    def _compact(self, keeps: int) -> int:
        """Keep the last so many lines; how many bytes they are."""
        lines = b"".join(self._path.read_bytes()[: self._size].splitlines(keepends=True)[-keeps:])
        replace_durably(self._path, lines)
        os.close(self._file)
        self._file = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        return len(lines)


def _keep(file: int, size: int) -> None:
    """What was found counts as safe from now on: an agent before us may have been killed before its flush."""
    if size:
        os.fdatasync(file)


class OutputSpool:
    """The output of one attempt, both streams in the order they came, as frames with a checksum each.

    It is kept whole until the attempt is forgotten: the digests of a half-read stream can't be stored, only
    computed again. What is bounded is the part that waits for the coordinator: see `has_room`.
    """

    def __init__(self, path: Path, key: AttemptKey, waiting_bytes_max: int) -> None:
        self._waiting_bytes_max = waiting_bytes_max
        self._digests = {stream: hashlib.sha256() for stream in OutputStream}
        self._bytes = dict.fromkeys(OutputStream, 0)
        # (output offset, file position) of a frame every so often, to begin reading at.
        self._index: list[tuple[int, int]] = [(0, 0)]
        self._written = 0
        self._position = 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._file).st_size
        self._scan()
        if self._position < size:
            log.warning("the output of %s ended in %d damaged bytes; cut", key, size - self._position)
            os.ftruncate(self._file, self._position)
        _keep(self._file, self._position)
        self.offset_acknowledged = 0
        self._lock = asyncio.Lock()
        self.is_abandoned = False
        self._room = asyncio.Event()
        self._room.set()

    @property
    def offset(self) -> int:
        """How much output is safe here, both streams together."""
        return self._written

    @property
    def size_bytes(self) -> int:
        """On the disk."""
        return self._position

    @property
    def waiting_bytes(self) -> int:
        """Output that is yet to be stored."""
        return 0 if self.is_abandoned else self._written - self.offset_acknowledged

    async def append(self, chunks: Sequence[OutputChunk]) -> None:
        """Add the output that comes next; it is shown to readers when it is on the disk.

        Whoever waits for it may be cancelled; what was begun is finished.
        """
        await asyncio.shield(self._append(chunks))

    async def _append(self, chunks: Sequence[OutputChunk]) -> None:
        async with self._lock:
            reached = self._written
            pieces: list[tuple[OutputStream, bytes]] = []
            for chunk in chunks:
                if chunk.offset != reached:
                    raise ValueError(f"output from {chunk.offset} can't follow output up to {reached}")
                reached += len(chunk.data)
                pieces += [
                    (chunk.stream, chunk.data[start : start + CHUNK_BYTES_MAX])
                    for start in range(0, len(chunk.data), CHUNK_BYTES_MAX)
                ]
            frames = [
                _FRAME.pack(_TAGS[stream], len(data), zlib.crc32(data)) + data for stream, data in pieces
            ]
            await asyncio.to_thread(self._write, b"".join(frames))
            for (stream, data), frame in zip(pieces, frames, strict=True):
                self._count(stream, data, len(frame))
            if self._written - self.offset_acknowledged >= self._waiting_bytes_max and not self.is_abandoned:
                self._room.clear()

    def _write(self, frames: bytes) -> None:
        os.lseek(self._file, self._position, os.SEEK_SET)
        write_all(self._file, frames)
        os.fdatasync(self._file)

    def read(self, offset: int, bytes_max: int) -> tuple[OutputChunk, ...]:
        """Output from an offset on, in chunks that were written whole where that is possible."""
        if offset >= self._written:
            return ()
        begin, position = max(entry for entry in self._index if entry[0] <= offset)
        chunks: list[OutputChunk] = []
        total = 0
        while begin < self._written and total < bytes_max:
            tag, length, _ = _FRAME.unpack(os.pread(self._file, _FRAME.size, position))
            if begin + length > offset:
                start = max(offset, begin)
                length_wanted = min(begin + length - start, bytes_max - total)
                data = os.pread(self._file, length_wanted, position + _FRAME.size + start - begin)
                _join(chunks, OutputChunk(offset=start, stream=_STREAMS[tag], data=data))
                total += len(data)
            begin += length
            position += _FRAME.size + length
        return tuple(chunks)

    def acknowledge(self, offset: int) -> None:
        self.offset_acknowledged = max(self.offset_acknowledged, min(offset, self._written))
        if self._written - self.offset_acknowledged < self._waiting_bytes_max:
            self._room.set()

    def take_back(self, offset: int) -> None:
        """The coordinator has no more than this, whatever it said."""
        self.offset_acknowledged = min(self.offset_acknowledged, offset)
        if self._written - self.offset_acknowledged >= self._waiting_bytes_max and not self.is_abandoned:
            self._room.clear()

    def abandon(self) -> None:
        """The coordinator will store no more of it."""
        self.is_abandoned = True
        self._room.set()

    async def has_room(self) -> None:
        """Returns when the coordinator has stored enough of what was written, or will store no more."""
        await self._room.wait()

    def totals(self) -> OutputTotals:
        return OutputTotals(
            stdout_bytes=self._bytes[OutputStream.STDOUT],
            stderr_bytes=self._bytes[OutputStream.STDERR],
            stdout_sha256=self._digests[OutputStream.STDOUT].digest(),
            stderr_sha256=self._digests[OutputStream.STDERR].digest(),
        )

    async def close(self) -> None:
        async with self._lock:
            os.close(self._file)

    def _scan(self) -> None:
        """Read what an agent before us wrote, up to the first frame that is not whole."""
        while True:
            header = os.pread(self._file, _FRAME.size, self._position)
            if len(header) < _FRAME.size:
                return
            tag, length, checksum = _FRAME.unpack(header)
            if tag not in _STREAMS or not 0 < length <= CHUNK_BYTES_MAX:
                return
            data = os.pread(self._file, length, self._position + _FRAME.size)
            if len(data) < length or zlib.crc32(data) != checksum:
                return
            self._count(_STREAMS[tag], data, _FRAME.size + length)

    def _count(self, stream: OutputStream, data: bytes, frame_bytes: int) -> None:
        self._digests[stream].update(data)
        self._bytes[stream] += len(data)
        self._written += len(data)
        self._position += frame_bytes
        if self._position - self._index[-1][1] >= _INDEX_BYTES:
            self._index.append((self._written, self._position))


def _join(chunks: list[OutputChunk], chunk: OutputChunk) -> None:
    """Small neighbours of one stream travel as one chunk."""
    last = chunks[-1] if chunks else None
    if (
        last is not None
        and last.stream is chunk.stream
        and len(last.data) + len(chunk.data) <= CHUNK_BYTES_MAX
    ):
        chunks[-1] = OutputChunk(offset=last.offset, stream=last.stream, data=last.data + chunk.data)
    else:
        chunks.append(chunk)
