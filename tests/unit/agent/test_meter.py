"""The meter cuts run time into records, and never more of it than there was."""

import asyncio
from pathlib import Path

import pytest

from agent.domain.attempt import AttemptKey, Run
from agent.domain.gpu import GpuSample
from agent.meter import MARGIN_MS, Meter
from agent.spool import UsageJournal

KEY = AttemptKey(attempt_id="a", epoch=1)
START_MS = 1_000_000


class ManualClock:
    """A boot clock that the test moves."""

    boot_id = "boot"

    def __init__(self) -> None:
        self.now_ms = START_MS

    def boot_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        raise AssertionError("metering must not look at the wall clock")

    async def sleep_ms(self, duration_ms: int) -> None:
        self.now_ms += duration_ms


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(tmp_path: Path):
    opened = UsageJournal(tmp_path / "usage", KEY)
    yield opened
    asyncio.run(opened.close())


def make_meter(journal: UsageJournal, clock: ManualClock) -> Meter:
    run = Run(run_id="r", start_boot_ms=START_MS, boot_id="boot")
    return Meter(run=run, journal=journal, gpu_uuids=["g"], clock=clock, record_ms=10_000)


def pieces(journal: UsageJournal) -> list[tuple[int, int]]:
    return [(record.start_ms, record.end_ms) for record in journal.after(0, 1_000)]


def sample(percent: int) -> GpuSample:
    return GpuSample(uuid="g", utilization_percent=percent, memory_used_bytes=None, energy_mj_total=None)


def test_a_record_is_due_when_its_time_is_over_and_safely_so(journal, clock):
    meter = make_meter(journal, clock)
    assert meter.due_in_ms() == 10_000 + MARGIN_MS
    clock.now_ms += 10_000
    assert meter.due_in_ms() == MARGIN_MS
    clock.now_ms += MARGIN_MS + 5
    assert meter.due_in_ms() == 0
    asyncio.run(meter.cut(meter.run_ms() - MARGIN_MS))
    assert pieces(journal) == [(0, 10_005)]


def test_records_of_all_runs_are_due_at_the_same_moments(journal, clock):
    """Whenever they began: so they go up in one message."""
    clock.now_ms += 3_000
    run = Run(run_id="r", start_boot_ms=clock.now_ms, boot_id="boot")
    meter = Meter(run=run, journal=journal, gpu_uuids=["g"], clock=clock, record_ms=10_000)
    assert meter.due_in_ms() == 7_000 + MARGIN_MS
    clock.now_ms += 7_000 + MARGIN_MS + 2
    asyncio.run(meter.cut(meter.run_ms() - MARGIN_MS))
    assert pieces(journal) == [(0, 7_002)]
    assert meter.due_in_ms() == 9_998


def test_what_the_gpus_did_is_in_the_record_of_its_time(journal, clock):
    meter = make_meter(journal, clock)
    meter.add([sample(10), sample(30)])
    asyncio.run(meter.cut(10_000))
    meter.add([sample(90)])
    asyncio.run(meter.cut(20_000))
    asyncio.run(meter.cut(25_000))
    uses = [record.gpus[0].utilization_percent for record in journal.after(0, 9)]
    assert uses == [20, 90, None]


def test_a_restarted_agent_goes_on_where_the_journal_ends(journal, clock):
    asyncio.run(make_meter(journal, clock).cut(10_000))
    clock.now_ms += 200_000
    meter = make_meter(journal, clock)
    assert meter.due_in_ms() == 0
    meter.add([sample(50)])
    asyncio.run(meter.cut(meter.run_ms()))
    assert pieces(journal) == [
        (0, 10_000),
        (10_000, 70_000),
        (70_000, 130_000),
        (130_000, 190_000),
        (190_000, 200_000),
    ]
    # Nobody looked for most of that time.
    assert all(record.gpus[0].utilization_percent is None for record in journal.after(1, 9))


def test_an_end_before_what_is_metered_adds_nothing(journal, clock):
    meter = make_meter(journal, clock)
    asyncio.run(meter.cut(10_000))
    asyncio.run(meter.cut(9_990))
    assert pieces(journal) == [(0, 10_000)]
    assert meter.run_ms() == 10_000


def test_a_run_shorter_than_a_record_has_one(journal, clock):
    meter = make_meter(journal, clock)
    asyncio.run(meter.cut(3))
    assert pieces(journal) == [(0, 3)]
    asyncio.run(make_meter(journal, clock).cut(3))
    assert pieces(journal) == [(0, 3)]
