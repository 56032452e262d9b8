"""Usage on disk: pieces that lie end to end, lines that survive a cut at every byte, and their journal."""

import asyncio
import errno
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import spool
from agent.domain.attempt import AttemptKey
from agent.domain.record import decode, encode, recover
from agent.domain.slices import slices
from agent.spool import UsageJournal
from runtime.evidence import GpuUse, UsageRecord, chain_start, make_record

KEY = AttemptKey(attempt_id="a", epoch=2)
USE = GpuUse(gpu_uuid="GPU-1", utilization_percent=50, memory_used_bytes=None, energy_mj=7)


def chain(count: int) -> list[UsageRecord]:
    records: list[UsageRecord] = []
    digest = chain_start(KEY.attempt_id, KEY.epoch)
    for number in range(1, count + 1):
        records.append(make_record(digest, number, (number - 1) * 10, number * 10, (USE,)))
        digest = records[-1].digest
    return records


@given(st.integers(0, 10**7), st.lists(st.integers(0, 10**6), max_size=10), st.integers(1, 60_000))
def test_slices_cover_all_time_once(begin, steps, slice_ms):
    metered = begin
    total: list[tuple[int, int]] = []
    reading = begin
    for step in steps:
        reading += step - 10_000  # clocks are read late and early; time that is metered stays so
        pieces = list(slices(metered, reading, slice_ms)) if reading - metered < slice_ms * 2_000 else []
        total += pieces
        metered = pieces[-1][1] if pieces else metered
    assert all(0 < end - start <= slice_ms for start, end in total)
    assert [start for start, _ in total] == [begin, *(end for _, end in total)][: len(total)]


@pytest.mark.parametrize("slice_ms", [0, -1, 60_001])
def test_a_slice_has_bounds(slice_ms):
    with pytest.raises(ValueError, match="a slice"):
        list(slices(0, 1, slice_ms))


def test_a_line_is_what_was_written():
    (record,) = chain(1)
    assert decode(encode(record).rstrip(b"\n")) == record


def test_a_journal_cut_at_any_byte_keeps_every_whole_line():
    lines = [encode(record) for record in chain(3)]
    raw = b"".join(lines)
    ends = [sum(map(len, lines[:n])) for n in range(4)]
    for cut in range(len(raw) + 1):
        found = recover(raw[:cut])
        whole = sum(1 for end in ends[1:] if end <= cut)
        assert found.records == tuple(chain(3)[:whole])
        assert (found.good_bytes, found.cut_bytes) == (ends[whole], cut - ends[whole])


def test_a_journal_damaged_at_any_byte_gives_nothing_false():
    raw = b"".join(encode(record) for record in chain(2))
    first_end = len(encode(chain(1)[0]))
    for place in range(len(raw)):
        damaged = raw[:place] + bytes([raw[place] ^ 0x20]) + raw[place + 1 :]
        assert list(recover(damaged).records) == chain(2)[: 0 if place < first_end else 1]


def test_a_tail_of_zeros_is_cut():
    raw = encode(chain(1)[0])
    assert recover(raw + bytes(4_096)).cut_bytes == 4_096


def test_what_does_not_follow_is_cut():
    first, _, third = chain(3)
    assert recover(encode(first) + encode(third)).records == (first,)


@pytest.mark.usefixtures("instant_flushes")
def test_the_journal_goes_on_after_a_crash_at_any_byte(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.ERROR)
    whole = tmp_path / "whole"

    async def write(path: Path, pieces: list[tuple[int, int]]) -> UsageJournal:
        journal = UsageJournal(path, KEY)
        await journal.append([(start, end, (USE,)) for start, end in pieces])
        return journal

    asyncio.run(asyncio.run(write(whole, [(0, 10), (10, 20)])).close())
    raw = whole.read_bytes()
    for cut in range(len(raw) + 1):
        path = tmp_path / "cut"
        path.write_bytes(raw[:cut])
        journal = UsageJournal(path, KEY)
        asyncio.run(_append(journal, journal.end_ms, 99))
        asyncio.run(journal.close())
        again = UsageJournal(path, KEY)
        records = again.after(0, 99)
        assert [record.number for record in records] == list(range(1, len(records) + 1))
        assert records[-1].end_ms == again.end_ms == 99
        assert records[0].previous_digest == chain_start(KEY.attempt_id, KEY.epoch)
        asyncio.run(again.close())


async def _append(journal: UsageJournal, start_ms: int, end_ms: int) -> None:
    await journal.append([(start_ms, end_ms, (USE,))])


def test_a_gap_is_refused(tmp_path: Path):
    journal = UsageJournal(tmp_path / "j", KEY)
    with pytest.raises(ValueError, match="can't follow"):
        asyncio.run(_append(journal, 5, 10))
    asyncio.run(journal.close())


@pytest.mark.usefixtures("instant_flushes")
def test_what_is_acknowledged_goes_and_the_chain_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "j"
    monkeypatch.setattr(spool, "KEPT_RECORDS", 40)

    async def story() -> None:
        journal = UsageJournal(path, KEY)
        for n in range(1_200):
            await journal.append([(n, n + 1, ())])
            await journal.acknowledge(n)
        # The last stays, acknowledged or not: the next one is chained to it.
        await journal.acknowledge(1_200)
        assert [record.number for record in journal.after(0, 5_000)] == [1_200]
        await journal.close()

    asyncio.run(story())
    assert 40 < len(path.read_bytes().splitlines()) < 600
    journal = UsageJournal(path, KEY)
    assert (journal.number_last, journal.end_ms) == (1_200, 1_200)
    (before,) = journal.after(1_199, 5)
    asyncio.run(_append(journal, 1_200, 1_300))
    assert journal.after(1_200, 5)[0].previous_digest == before.digest
    asyncio.run(journal.close())


def test_a_write_that_fails_half_way_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A full disk takes a part of a line; the next line must not stand behind that part."""
    journal = UsageJournal(tmp_path / "j", KEY)
    asyncio.run(_append(journal, 0, 10))

    def full(file: int, data: bytes) -> None:
        os.write(file, data[:20])
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(spool, "write_all", full)
        with pytest.raises(OSError, match="no space"):
            asyncio.run(_append(journal, 10, 20))
    assert journal.end_ms == 10
    asyncio.run(_append(journal, 10, 30))
    asyncio.run(journal.close())
    again = UsageJournal(tmp_path / "j", KEY)
    assert [(r.start_ms, r.end_ms) for r in again.after(0, 9)] == [(0, 10), (10, 30)]
    asyncio.run(again.close())


@pytest.mark.usefixtures("instant_flushes")
def test_what_the_coordinator_has_lost_is_told_again_as_far_as_the_disk_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its database was restored from a backup of before it acknowledged them."""
    monkeypatch.setattr(spool, "KEPT_RECORDS", 500)

    async def story() -> None:
        journal = UsageJournal(tmp_path / "j", KEY)
        for n in range(1_100):
            await journal.append([(n, n + 1, ())])
            await journal.acknowledge(n)
        await journal.take_back(1_050)
        assert [record.number for record in journal.after(1_050, 5_000)] == list(range(1_051, 1_101))
        assert journal.number_acknowledged == 1_050
        await journal.take_back(3)
        first = journal.after(3, 5_000)[0]
        assert 500 < first.number <= 600, "older ones are gone"
        assert journal.number_acknowledged == first.number - 1
        await journal.acknowledge(1_100)
        await journal.append([(1_100, 1_200, ())])
        assert [record.number for record in journal.after(1_100, 9)] == [1_101]
        await journal.close()

    asyncio.run(story())
