"""What is remembered of an attempt: the last line that is whole, however the file was left."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent import memory as remembered
from agent.domain.attempt import EndReason, Network, Run
from agent.memory import Memory, MemoryFile
from tests.support.orders import order

FIRST = Memory(
    order=order(network=Network.ALLOW_LIST, network_destinations=("example.org:443",)), paid_through_ms=1_000
)
RUNNING = replace(FIRST, run=Run(run_id="r", start_boot_ms=5, boot_id="b"))
STOPPED = replace(RUNNING, stop_reason=EndReason.CANCELLED)


@pytest.fixture
def file(tmp_path: Path):
    made = MemoryFile(tmp_path)
    yield made
    made.close()


def test_the_newest_counts(file):
    for memory in (FIRST, RUNNING, STOPPED):
        file.save(memory)
        found = remembered.load(file.folder)
        assert found == memory
        assert found.order.network is Network.ALLOW_LIST


def test_nothing_was_remembered_yet(tmp_path):
    assert remembered.load(tmp_path) is None


@pytest.mark.usefixtures("instant_flushes")
def test_a_torn_line_leaves_the_one_before_wherever_it_is_torn(file):
    file.save(RUNNING)
    path = file.folder / "attempt.json"
    before = path.read_bytes()
    file.save(STOPPED)
    whole = path.read_bytes()
    for size in range(len(before), len(whole)):
        path.write_bytes(whole[:size])
        # All of it but the line's end is all of it.
        assert remembered.load(file.folder) == (STOPPED if size == len(whole) - 1 else RUNNING)
        path.write_bytes(whole[:size].ljust(len(whole), b"\0"))
        assert remembered.load(file.folder) == RUNNING


def test_who_comes_back_begins_anew_behind_a_torn_line(file):
    file.save(RUNNING)
    path = file.folder / "attempt.json"
    path.write_bytes(path.read_bytes() + b'{"order": {"k')
    later = MemoryFile(file.folder)
    later.save(STOPPED)
    assert remembered.load(file.folder) == STOPPED
    assert path.read_bytes().count(b"\n") == 1
    later.close()


def test_all_of_it_torn_is_said(tmp_path):
    (tmp_path / "attempt.json").write_text("{damaged")
    with pytest.raises(ValueError, match="whole"):
        remembered.load(tmp_path)


def test_a_line_that_could_not_be_written_is_not_written_behind(file, monkeypatch):
    file.save(FIRST)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        with pytest.raises(OSError, match="full"):
            file.save(RUNNING)
    file.save(STOPPED)
    assert remembered.load(file.folder) == STOPPED
    assert (file.folder / "attempt.json").read_bytes().count(b"\n") == 1


def test_the_past_does_not_pile_up(file):
    for paid_through_ms in range(500):
        file.save(replace(RUNNING, paid_through_ms=paid_through_ms))
    found = remembered.load(file.folder)
    assert found is not None
    assert found.paid_through_ms == 499
    assert (file.folder / "attempt.json").stat().st_size < 70_000
