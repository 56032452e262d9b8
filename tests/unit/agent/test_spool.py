"""Output on disk: kept whole, bounded in what waits, and whole again after a crash at any byte."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from agent.domain.attempt import AttemptKey, OutputChunk, OutputStream
from agent.spool import OutputSpool

KEY = AttemptKey(attempt_id="a", epoch=1)
OUT, ERR = OutputStream.STDOUT, OutputStream.STDERR


def open_spool(path: Path, waiting_bytes_max: int = 1 << 20) -> OutputSpool:
    return OutputSpool(path, KEY, waiting_bytes_max)


async def write(spool: OutputSpool, *pieces: tuple[OutputStream, bytes]) -> None:
    for stream, data in pieces:
        await spool.append([OutputChunk(offset=spool.offset, stream=stream, data=data)])


def text(spool: OutputSpool, offset: int = 0, bytes_max: int = 1 << 20) -> str:
    return "|".join(f"{c.stream[3]}{c.offset}:{c.data.decode()}" for c in spool.read(offset, bytes_max))


def test_what_was_written_can_be_read_from_any_byte(tmp_path):
    spool = open_spool(tmp_path / "s")
    asyncio.run(write(spool, (OUT, b"ab"), (OUT, b"cd"), (ERR, b"ef"), (OUT, b"g")))
    assert text(spool) == "o0:abcd|e4:ef|o6:g"
    assert text(spool, 1) == "o1:bcd|e4:ef|o6:g"
    assert text(spool, 5) == "e5:f|o6:g"
    assert text(spool, 7) == text(spool, 99) == ""
    assert text(spool, 0, bytes_max=4) == "o0:abcd"
    assert text(spool, 0, bytes_max=1) == "o0:a"
    asyncio.run(spool.close())


def test_totals_are_of_each_stream(tmp_path):
    spool = open_spool(tmp_path / "s")
    asyncio.run(write(spool, (OUT, b"ab"), (ERR, b"x"), (OUT, b"cd")))
    totals = spool.totals()
    assert (totals.stdout_bytes, totals.stderr_bytes) == (4, 1)
    assert totals.stdout_sha256 == hashlib.sha256(b"abcd").digest()
    assert totals.stderr_sha256 == hashlib.sha256(b"x").digest()
    asyncio.run(spool.close())
    again = open_spool(tmp_path / "s")
    assert again.totals() == totals
    asyncio.run(again.close())


def test_a_crash_at_any_byte_leaves_a_beginning_to_go_on_from(tmp_path):
    whole = tmp_path / "whole"
    spool = open_spool(whole)
    asyncio.run(write(spool, (OUT, b"first"), (ERR, b"second"), (OUT, b"third")))
    asyncio.run(spool.close())
    raw = whole.read_bytes()
    for cut in range(len(raw) + 1):
        path = tmp_path / "cut"
        path.write_bytes(raw[:cut] + bytes(7))  # a file system may leave zeros behind
        spool = open_spool(path)
        kept = b"".join(chunk.data for chunk in spool.read(0, 100))
        assert b"firstsecondthird".startswith(kept)
        assert spool.offset == len(kept)
        asyncio.run(write(spool, (OUT, b"!")))
        assert b"".join(chunk.data for chunk in spool.read(0, 100)) == kept + b"!"
        asyncio.run(spool.close())


def test_a_damaged_frame_ends_what_is_believed(tmp_path):
    path = tmp_path / "s"
    spool = open_spool(path)
    asyncio.run(write(spool, (OUT, b"good"), (OUT, b"evil")))
    asyncio.run(spool.close())
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"evil", b"Evil"))
    spool = open_spool(path)
    assert text(spool) == "o0:good"
    asyncio.run(spool.close())


def test_big_writes_come_as_chunks_that_the_wire_takes(tmp_path):
    spool = open_spool(tmp_path / "s", 1 << 30)
    data = bytes(range(256)) * 20_000
    asyncio.run(write(spool, (OUT, data)))
    chunks = spool.read(0, 256 << 10)
    assert sum(len(chunk.data) for chunk in chunks) == 256 << 10
    assert max(len(chunk.data) for chunk in chunks) == 65_536
    deep = spool.read(3 << 20, 10)
    assert deep[0].offset == 3 << 20
    assert deep[0].data == data[3 << 20 :][: len(deep[0].data)]
    asyncio.run(spool.close())


def test_a_hole_is_refused(tmp_path):
    spool = open_spool(tmp_path / "s")
    with pytest.raises(ValueError, match="can't follow"):
        asyncio.run(spool.append([OutputChunk(offset=1, stream=OUT, data=b"x")]))
    asyncio.run(spool.close())


def test_it_is_full_until_the_coordinator_has_stored_enough(tmp_path):
    async def story() -> None:
        spool = open_spool(tmp_path / "s", waiting_bytes_max=10)
        await write(spool, (OUT, b"123456789"))
        await asyncio.wait_for(spool.has_room(), 1)
        await write(spool, (OUT, b"0"))
        waiting = asyncio.create_task(spool.has_room())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        spool.acknowledge(4)
        await asyncio.wait_for(waiting, 1)
        spool.acknowledge(2)  # old news
        assert spool.offset_acknowledged == 4
        spool.acknowledge(10_000)  # more than there is
        assert spool.offset_acknowledged == 10
        await spool.close()

    asyncio.run(story())


def test_output_that_the_coordinator_has_lost_waits_again(tmp_path):
    async def story() -> None:
        spool = open_spool(tmp_path / "s", waiting_bytes_max=4)
        await write(spool, (OUT, b"abcd"))
        spool.acknowledge(4)
        await spool.has_room()
        spool.take_back(1)
        assert spool.offset_acknowledged == 1
        assert text(spool, 1) == "o1:bcd"
        await write(spool, (OUT, b"e"))
        waits = asyncio.ensure_future(spool.has_room())
        await asyncio.sleep(0)
        assert not waits.done(), "four bytes wait: as many as may"
        spool.acknowledge(5)
        await waits
        await spool.close()

    asyncio.run(story())
