"""From what a host claims to what may be charged: never a millisecond that was not witnessed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.domain.metering import (
    RECORD_MS_MAX,
    Lie,
    Meter,
    accept,
    believe,
    drift_ms,
    elapsed_ms,
    paid_through_ms,
    passed_ms,
    sight,
    sight_by_usage,
)
from coordinator.domain.pricing import HOUR_MS
from runtime.evidence import GpuUse, make_record
from tests.support.values import BOOT, HOST_BOOT, WINDOW_MS, at, meter, record

LATE = at(10**9)


def seen(*moments, of=None, container="c", host_boot=HOST_BOOT, run_ms_more=10**9) -> Meter:
    """The meter after the container was seen alive at these moments."""
    found = of or meter()
    for moment in moments:
        after = sight(found, container, host_boot, run_ms_more, moment, WINDOW_MS)
        assert isinstance(after, Meter)
        found = after
    return found


# How much time lies between two moments of ours.


@pytest.mark.parametrize(
    ("earlier", "later", "ms"),
    [
        (at(100), at(600), 500),
        (at(600), at(100), 0),
        (at(100, wall_ms=5_000_000), at(600, wall_ms=1), 500),  # the wall clock was set back
        (at(100, wall_ms=1), at(600, wall_ms=9_999_999), 500),  # and forth
        (at(100, wall_ms=1_000), at(7, boot_id="next", wall_ms=4_000), 3_000),  # we were rebooted
        (at(100, wall_ms=4_000), at(7, boot_id="next", wall_ms=1_000), 0),  # and our wall clock set back
    ],
)
def test_time_between_two_moments(earlier, later, ms):
    assert elapsed_ms(earlier, later) == ms


@pytest.mark.parametrize(
    ("since", "started", "ms"),
    [
        (at(1_000), at(500), 9_000),
        (at(1_000), at(4_000), 6_000),  # we were away in between
        (
            at(1_000, boot_id="before", wall_ms=10**13),
            at(4_000),
            6_000,
        ),  # our wall clock went back (seed 5132)
        (at(1_000, boot_id="before", wall_ms=1), at(4_000), 6_000),  # and forth
    ],
)
def test_how_long_we_have_waited(since, started, ms):
    assert passed_ms(since, started, at(10_000)) == ms


# What is witnessed.


@pytest.mark.parametrize(
    ("moments", "witnessed_ms"),
    [
        ([], 0),
        ([1_000], 0),
        ([1_000, 6_000, 11_000], 10_000),
        ([1_000, 1_000 + WINDOW_MS], WINDOW_MS),  # a cut just as long as the window is bridged
        ([1_000, 1_001 + WINDOW_MS], 0),  # a longer one counts for nothing
        ([1_000, 6_000, 7_000 + 2 * WINDOW_MS, 9_000 + 2 * WINDOW_MS], 7_000),
        ([1_000, 500, 2_000], 1_000),  # a moment that came before counts for nothing
    ],
)
def test_witnessed_is_the_sum_of_bridged_gaps(moments, witnessed_ms):
    assert seen(*map(at, moments)).witnessed_ms == witnessed_ms


def test_a_jump_of_our_wall_clock_changes_nothing():
    jumps = [at(0, wall_ms=10**12), at(5_000, wall_ms=5), at(10_000, wall_ms=10**13)]
    assert seen(*jumps).witnessed_ms == 10_000


def test_over_a_reboot_of_ours_the_wall_clock_must_do_and_the_window_still_bounds():
    rebooted = at(3, boot_id="next", wall_ms=at(0).wall_ms + 20_000)
    assert seen(at(0), rebooted).witnessed_ms == 20_000
    jumped = at(3, boot_id="next", wall_ms=10**13)
    assert seen(at(0), jumped).witnessed_ms == 0


def test_nothing_counts_after_the_stop_was_asked_for():
    before = replace(seen(at(0), at(5_000)), stop_asked=at(7_000))
    during = seen(at(10_000), of=before)
    assert during.witnessed_ms == 7_000
    assert seen(at(20_000), of=during).witnessed_ms == 7_000


def test_over_a_reboot_of_ours_no_more_counts_than_the_host_says_that_it_ran():
    """Our wall clock was set forth while we were away (seed 3137): that would have paid for later time."""
    rebooted = at(3, boot_id="next", wall_ms=at(0).wall_ms + 20_000)
    assert seen(rebooted, of=seen(at(0)), run_ms_more=5_000).witnessed_ms == 5_000
    assert seen(rebooted, of=seen(at(0)), run_ms_more=-1).witnessed_ms == 0


@pytest.mark.parametrize(
    ("sighted", "stopped", "now", "ms"),
    [
        # Each a boot of ours and a time in it; the wall clock says that the stop came late in all of them.
        (("a", 0), ("a", 7_000), ("b", 9_000), 7_000),
        (("a", 0), ("b", 7_000), ("b", 9_000), 8_000),
        (("b", 0), ("a", 7_000), ("b", 9_000), 0),
        (("b", 0), ("a", 7_000), ("c", 9_000), 0),
    ],
)
def test_a_stop_is_before_or_after_by_the_boot_that_it_belongs_to(sighted, stopped, now, ms):
    """Told by the wall clock, a stop before our reboot was after it (seed 3099): the buyer paid for later."""
    walls = {"a": 1_000_000, "b": 1_001_000, "c": 1_002_000}
    was, stop, seen_at = (
        at(ms_, boot_id=boot, wall_ms=walls[boot] + ms_) for boot, ms_ in (sighted, stopped, now)
    )
    before = replace(seen(was), stop_asked=replace(stop, wall_ms=stop.wall_ms + 10**6))
    assert seen(seen_at, of=before).witnessed_ms == ms


def test_what_is_first_seen_after_the_stop_counts_for_nothing():
    assert seen(at(5_000), at(9_000), of=meter(stop_asked=at(1_000))).witnessed_ms == 0


def test_another_container_is_another_run_and_a_lie():
    assert sight(seen(at(0)), "other", HOST_BOOT, 1, at(1), WINDOW_MS) is Lie.OTHER_CONTAINER


def test_a_machine_that_was_restarted_witnesses_nothing_and_lies_not():
    """Its agent honestly says what it held before: it was called a liar for it."""
    before = seen(at(0), at(5_000))
    assert sight(before, "c", "another-boot", 4_000, at(9_000), WINDOW_MS) == before
    assert sight_by_usage(before, "another-boot", at(9_000), WINDOW_MS) == before


def test_usage_that_arrives_shows_the_run_as_a_beat_does():
    """The last record comes before the beat that tells the end; its seconds went unpaid."""
    before = seen(at(0), at(5_000))
    assert sight_by_usage(before, HOST_BOOT, at(8_000), WINDOW_MS) == seen(at(8_000), of=before)
    assert sight_by_usage(meter(), HOST_BOOT, at(8_000), WINDOW_MS) == meter(), "but it begins none"


# What a record may cost.


@pytest.mark.parametrize(
    ("changes", "end_ms", "billed_ms"),
    [
        ({"witnessed_ms": 60_000}, 60_000, 60_000),
        ({"witnessed_ms": 10_000}, 60_000, 10_000),  # no more than was witnessed
        ({"witnessed_ms": 60_000}, 10_000, 10_000),  # no more than was recorded
        ({"witnessed_ms": 60_000, "run_ms_affordable": 30_000}, 60_000, 30_000),  # nor than is paid for
        ({"witnessed_ms": 60_000, "run_ms_max": 20_000}, 60_000, 20_000),  # nor than was asked for
        ({"witnessed_ms": 0}, 60_000, 0),
    ],
)
def test_the_least_of_all_bounds_is_billed(changes, end_ms, billed_ms):
    after, (line,), lie = accept(meter(**changes), [record(None, end_ms)], LATE)
    assert lie is None
    assert (after.billed_ms, line.billed_through_ms) == (billed_ms, billed_ms)
    assert line.charge.charge_micro == billed_ms, "at 3.6 credits an hour a millisecond is a micro-credit"
    assert line.witnessed_ms == changes["witnessed_ms"]
    assert after.usage_end_ms == end_ms, "what is not billed is taken in all the same"


def test_what_was_witnessed_late_is_paid_with_the_next_record():
    first = record(None, 10_000)
    after, (line,), _ = accept(meter(witnessed_ms=4_000), [first], LATE)
    assert line.charge.charge_micro == 4_000
    _, (line,), _ = accept(replace(after, witnessed_ms=12_000), [record(first, 11_000)], LATE)
    assert line.charge.charge_micro == 7_000


FIRST = record(None, 10_000)
AFTER_FIRST = replace(
    meter(witnessed_ms=10_000), usage_number=1, usage_end_ms=10_000, usage_digest=FIRST.digest
)


@pytest.mark.parametrize(
    ("claim", "lie"),
    [
        (record(record(FIRST, 20_000), 30_000), Lie.BROKEN_CHAIN),  # one was left out
        (record(None, 20_000), Lie.BROKEN_CHAIN),  # the first again, longer
        (make_record(b"\0" * 32, 2, 10_000, 20_000, ()), Lie.BROKEN_CHAIN),
        (make_record(FIRST.digest, -1, 10_000, 20_000, ()), Lie.BROKEN_CHAIN),
        (replace(record(FIRST, 20_000), end_ms=30_000), Lie.FALSE_DIGEST),
        (replace(record(FIRST, 20_000), digest=b""), Lie.FALSE_DIGEST),
        (record(FIRST, 20_000, start_ms=9_999), Lie.FALSE_SPAN),  # overlaps
        (record(FIRST, 20_000, start_ms=10_001), Lie.FALSE_SPAN),  # leaves a hole
        (record(FIRST, 10_000), Lie.FALSE_SPAN),  # is empty
        (record(FIRST, 9_000), Lie.FALSE_SPAN),  # goes back
        (record(FIRST, 10_001 + RECORD_MS_MAX), Lie.FALSE_SPAN),  # is too long
        (record(FIRST, 20_000, gpus=(GpuUse(gpu_uuid="GPU-2"),)), Lie.FOREIGN_GPU),
        (record(FIRST, 20_000, gpus=(GpuUse(gpu_uuid="GPU-1", utilization_percent=101),)), Lie.FALSE_FIGURE),
        (record(FIRST, 20_000, gpus=(GpuUse(gpu_uuid="GPU-1", utilization_percent=-1),)), Lie.FALSE_FIGURE),
        (record(FIRST, 20_000, gpus=(GpuUse(gpu_uuid="GPU-1", memory_used_bytes=-1),)), Lie.FALSE_FIGURE),
        (record(FIRST, 20_000, gpus=(GpuUse(gpu_uuid="GPU-1", energy_mj=-1),)), Lie.FALSE_FIGURE),
    ],
)
def test_what_no_honest_agent_says(claim, lie):
    assert accept(AFTER_FIRST, [claim], LATE) == (AFTER_FIRST, [], lie)


def test_what_comes_before_a_lie_is_taken_in_as_if_it_had_come_alone():
    second = record(FIRST, 20_000)
    alone, lines, _ = accept(AFTER_FIRST, [second], LATE)
    claims = [second, record(second, 30_000, gpus=(GpuUse(gpu_uuid="GPU-2"),)), record(second, 30_000)]
    assert accept(AFTER_FIRST, claims, LATE) == (alone, lines, Lie.FOREIGN_GPU)


def test_more_time_than_has_passed_is_a_lie():
    assert accept(AFTER_FIRST, [record(FIRST, 20_000)], at(18_900))[2] is Lie.FALSE_TIME
    assert accept(AFTER_FIRST, [record(FIRST, 20_000)], at(19_000))[2] is None, "clocks drift"


def test_every_lie_has_a_row_above():
    assert set(Lie) == {
        Lie.OTHER_CONTAINER, Lie.BROKEN_CHAIN, Lie.FALSE_DIGEST, Lie.FALSE_SPAN, Lie.FOREIGN_GPU,
        Lie.FALSE_FIGURE, Lie.FALSE_TIME,
    }  # fmt: skip


def test_an_honest_record_of_every_figure_is_taken():
    use = GpuUse(gpu_uuid="GPU-1", utilization_percent=100, memory_used_bytes=0, energy_mj=1)
    assert accept(AFTER_FIRST, [record(FIRST, 20_000, gpus=(use,))], LATE)[2] is None


# Run time that a host says but that was not measured.


@pytest.mark.parametrize(
    ("run_ms", "now", "believed"),
    [
        (5_000, at(10_000), 5_000),
        (10_500, at(10_000), 10_000),  # its clock runs ahead
        (10_000 + drift_ms(10_000) + 1, at(10_000), Lie.FALSE_TIME),
        (10**15, at(3, boot_id="next", wall_ms=1), 10**15),  # we can't be sure, and it is not money
    ],
)
def test_no_run_is_older_than_its_attempt(run_ms, now, believed):
    assert believe(meter(), run_ms, now) == believed


@pytest.mark.parametrize(
    ("changes", "run_ms", "paid_through"),
    [
        ({}, 0, WINDOW_MS),
        ({}, 30_000, 30_000 + WINDOW_MS),
        ({"run_ms_affordable": 40_000}, 30_000, 40_000),
        ({"run_ms_max": 35_000}, 30_000, 35_000),
    ],
)
def test_the_fuse_is_as_long_as_the_window_while_money_and_time_last(changes, run_ms, paid_through):
    assert paid_through_ms(meter(**changes), run_ms, WINDOW_MS) == paid_through


@pytest.mark.parametrize("beat_ms", [500, WINDOW_MS // 6, WINDOW_MS // 3])
def test_the_fuse_is_two_beats_ahead_when_the_next_beat_is_answered(beat_ms):
    """With the longest beat that settings allow for a window, too."""
    run_ms, now_ms, paid_ms = 0, 0, 0
    for _ in range(5):
        paid_ms = max(paid_ms, paid_through_ms(meter(), run_ms, WINDOW_MS))
        now_ms += beat_ms
        assert paid_ms - now_ms >= 2 * beat_ms
        run_ms = now_ms


# All of it together.

MOMENTS = st.lists(st.integers(0, 3 * WINDOW_MS), max_size=12)
LENGTHS = st.lists(st.integers(1, RECORD_MS_MAX), max_size=12)


@given(
    moments=MOMENTS,
    lengths=LENGTHS,
    price=st.integers(1, 10**9),
    affordable_ms=st.integers(0, 400_000),
    stop_ms=st.none() | st.integers(0, 200_000),
    reboot_at=st.integers(0, 12),
)
def test_no_order_of_beats_and_records_costs_more_than_it_may(
    moments, lengths, price, affordable_ms, stop_ms, reboot_at
):
    """Whatever is seen and claimed: the bill is the floor of the whole, and within every bound."""
    found = meter(hour_price_micro=price, run_ms_affordable=affordable_ms)
    if stop_ms is not None:
        found = replace(found, stop_asked=at(stop_ms))
    charged, last, shown = 0, None, []
    for index in range(max(len(moments), len(lengths))):
        if index < len(moments):
            moment = sorted(moments)[index]
            now = at(moment, boot_id=BOOT if index < reboot_at else "next")
            shown.append(moment)
            found = seen(now, of=found)
        if index < len(lengths):
            last = record(last, (last.end_ms if last else 0) + lengths[index])
            found, (line,), lie = accept(found, [last], LATE)
            assert lie is None
            charged += line.charge.charge_micro
            assert line.charge.fee_micro + line.charge.earning_micro == line.charge.charge_micro
            assert line.billed_through_ms <= min(line.record.end_ms, line.witnessed_ms)
    assert charged == price * found.billed_ms // HOUR_MS
    assert found.billed_ms <= affordable_ms
    assert found.billed_ms <= (last.end_ms if last else 0)
    assert found.witnessed_ms <= (max(shown) - min(shown) if shown else 0)
    if stop_ms is not None and shown:
        assert found.billed_ms <= max(0, stop_ms - min(shown))
