"""What is concluded from what a GPU tells: every sign, alone and together with others."""

from dataclasses import replace

import pytest

from agent.domain.gpu import GpuFault, GpuReading, GpuSample, GpuVitals
from agent.domain.health import (
    ADVICE_MS,
    HEALTHY,
    MEMORY_AT_REST_BYTES_MAX,
    MEMORY_SLACK_BYTES,
    SETTLE_MS,
    SILENT_MS,
    Chart,
    Condition,
    GpuHealth,
    after_reading,
    after_use,
    after_xid,
    joined,
    judge,
    what_is_left,
)
from agent.domain.xid import XIDS, Meaning, from_kernel_log, meaning, place, words

NOW = 1_000_000
MIB = 1 << 20


def reading(used: int | None = 0, *, processes: tuple[int, ...] | None = (), **more) -> GpuReading:
    sample = GpuSample(uuid="g", memory_used_bytes=used, energy_mj_total=more.pop("energy", 5_000))
    return GpuReading(uuid="g", sample=sample, processes=processes, **more)


def chart(*readings: GpuReading, at: int = NOW) -> Chart:
    made = Chart(answered_ms=at)
    for each in readings or (reading(),):
        made = after_reading(made, each, at)
    return made


def condition(of: Chart, at: int = NOW) -> Condition:
    return judge(of, at).condition


def test_a_gpu_that_answers_and_is_clean_is_healthy():
    assert judge(chart(), NOW) == HEALTHY


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (GpuFault.LOST, Condition.LOST),
        (GpuFault.RESET_REQUIRED, Condition.LOST),
        (GpuFault.GONE, Condition.LOST),
        # Nobody knows what the GPU itself does: a job may go on well while the library hangs.
        (GpuFault.SILENT, Condition.DEGRADED),
        (GpuFault.FAILING, Condition.DEGRADED),
    ],
)
def test_a_fault_counts_until_it_answers_again(fault, expected):
    faulty = after_reading(chart(), GpuReading(uuid="g", fault=fault), NOW)
    assert judge(faulty, NOW) == GpuHealth(condition=expected, reason=str(fault))
    assert judge(after_reading(faulty, reading(), NOW), NOW) == HEALTHY


def test_whoever_is_not_heard_of_gets_nothing_new():
    silent = chart()
    assert condition(silent, NOW + SILENT_MS) is Condition.HEALTHY
    assert condition(silent, NOW + SILENT_MS + 1) is Condition.DEGRADED


@pytest.mark.parametrize("number", [*XIDS, 999])
def test_every_error_number_is_held_against_whom_it_concerns(number):
    struck = after_xid(chart(), number, NOW)
    match meaning(number):
        case Meaning.NOTICE | Meaning.JOBS_OWN_FAULT | Meaning.ENDS_JOB:
            assert judge(struck, NOW) == HEALTHY
        case Meaning.DEGRADES:
            assert judge(struck, NOW) == GpuHealth(condition=Condition.DEGRADED, reason=words(number))
        case Meaning.LOSES:
            assert judge(struck, NOW) == GpuHealth(condition=Condition.LOST, reason=words(number))


def test_which_numbers_are_the_jobs_own_fault():
    own = {number for number, (kind, _) in XIDS.items() if kind is Meaning.JOBS_OWN_FAULT}
    assert own >= {13, 31, 43, 45, 68, 109}
    assert not own & {48, 63, 64, 74, 79, 92, 94, 95, 119, 120}


def test_an_unknown_number_keeps_new_jobs_away_and_ends_none():
    assert meaning(4_711) is Meaning.DEGRADES
    assert words(4_711) == "XID 4711"


class TestForgiving:
    """Errors stay until it is proved that they are over."""

    struck = after_xid(chart(), 79, NOW)

    def test_time_alone_and_good_answers_prove_nothing(self):
        later = after_reading(self.struck, reading(vitals=GpuVitals()), NOW + 86_400_000)
        assert condition(later, NOW + 86_400_000) is Condition.LOST

    def test_an_energy_counter_that_begins_anew_proves_a_reset(self):
        assert judge(after_reading(self.struck, reading(energy=10), NOW), NOW) == HEALTHY

    def test_the_driver_that_needs_nothing_is_believed_after_a_while(self):
        well = reading(vitals=GpuVitals(recovery_action=0))
        assert condition(after_reading(self.struck, well, NOW + ADVICE_MS - 1)) is Condition.LOST
        assert condition(after_reading(self.struck, well, NOW + ADVICE_MS)) is Condition.HEALTHY


@pytest.mark.parametrize(
    ("vitals", "expected", "word"),
    [
        (GpuVitals(), Condition.HEALTHY, ""),
        (GpuVitals(recovery_action=0, ecc_uncorrected=0, remap_pending=False), Condition.HEALTHY, ""),
        (GpuVitals(recovery_action=1), Condition.LOST, "must be reset"),
        (GpuVitals(recovery_action=2), Condition.LOST, "must be reset"),
        (GpuVitals(recovery_action=4), Condition.DEGRADED, "drained"),
        (GpuVitals(remap_pending=True), Condition.DEGRADED, "at the next reset"),
        (GpuVitals(remap_failed=True, remap_pending=True), Condition.DEGRADED, "could not be replaced"),
        (GpuVitals(ecc_uncorrected=1), Condition.DEGRADED, "could not be corrected"),
        (GpuVitals(ecc_corrected=1_000, rows_remapped=2), Condition.HEALTHY, ""),
    ],
)
def test_vitals(vitals, expected, word):
    health = judge(chart(reading(vitals=vitals)), NOW)
    assert health.condition is expected
    assert word in health.reason
    # They stand until others are told.
    assert judge(after_reading(chart(reading(vitals=vitals)), reading(), NOW), NOW) == health


class TestLeftovers:
    """Memory and processes on a GPU that nobody has from us."""

    def test_a_foreign_process_keeps_jobs_away_and_is_named(self):
        health = judge(chart(reading(processes=(17, 4711))), NOW)
        assert health.condition is Condition.DEGRADED
        assert "17, 4711" in health.reason
        many = judge(chart(reading(processes=tuple(range(9)))), NOW)
        assert "and 4 more" in many.reason

    def test_memory_that_nobody_has_counts_from_what_the_gpu_uses_at_rest(self):
        rested = chart(reading(100 * MIB))
        assert rested.memory_at_rest_bytes == 100 * MIB
        most = 100 * MIB + MEMORY_SLACK_BYTES
        assert condition(after_reading(rested, reading(most), NOW)) is Condition.HEALTHY
        full = after_reading(rested, reading(most + 1), NOW)
        assert condition(full) is Condition.DEGRADED
        assert full.memory_at_rest_bytes == 100 * MIB

    def test_a_gpu_never_seen_at_rest_is_not_believed_to_rest_at_much(self):
        full = chart(reading(MEMORY_AT_REST_BYTES_MAX + 1))
        assert full.memory_at_rest_bytes is None
        assert condition(full) is Condition.DEGRADED

    def test_a_desktop_may_take_what_it_likes(self):
        assert judge(chart(reading(9_000 * MIB, unsteady=True)), NOW) == HEALTHY

    def test_what_is_not_told_is_not_held_against_it(self):
        assert judge(chart(reading(None, processes=None)), NOW) == HEALTHY

    def test_while_a_job_has_it_all_this_is_the_jobs(self):
        used = after_use(chart(reading(0)), in_use=True, now_ms=NOW)
        busy = after_reading(used, reading(20_000 * MIB, processes=(17,)), NOW)
        assert judge(busy, NOW) == HEALTHY
        assert busy.memory_at_rest_bytes == 0

    def test_after_a_job_it_has_time_to_settle_and_then_is_quarantined_until_it_is_clean(self):
        used = after_use(chart(reading(0)), in_use=True, now_ms=NOW)
        left = after_use(
            after_reading(used, reading(20_000 * MIB, processes=(17,)), NOW), in_use=False, now_ms=NOW
        )
        assert what_is_left(left)
        assert condition(left, NOW + SETTLE_MS - 1) is Condition.HEALTHY
        assert condition(left, NOW + SETTLE_MS) is Condition.DEGRADED
        freed = after_reading(left, reading(20_000 * MIB), NOW + SETTLE_MS)
        assert "20000 MiB" in judge(freed, NOW + SETTLE_MS).reason
        assert judge(after_reading(freed, reading(0), NOW + SETTLE_MS), NOW + SETTLE_MS) == HEALTHY

    def test_a_lost_gpu_is_lost_whoever_has_it(self):
        used = after_use(chart(), in_use=True, now_ms=NOW)
        assert condition(after_xid(used, 79, NOW)) is Condition.LOST


def test_a_slice_is_as_well_as_the_worse_of_it_and_its_board():
    degraded = GpuHealth(condition=Condition.DEGRADED, reason="a")
    lost = GpuHealth(condition=Condition.LOST, reason="b")
    assert joined(HEALTHY, degraded) == joined(degraded, HEALTHY) == degraded
    assert joined(degraded, lost) == joined(lost, degraded) == lost
    assert joined(HEALTHY, HEALTHY) == HEALTHY


def test_a_worse_sign_wins():
    both = after_xid(after_xid(chart(reading(vitals=GpuVitals(remap_pending=True))), 74, NOW), 79, NOW)
    assert condition(both) is Condition.LOST
    assert "XID 79" in judge(both, NOW).reason
    assert condition(replace(both, xids=(74,))) is Condition.DEGRADED


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "4,1,2,-;NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', GPU has fallen off the bus.",
            ("0000:01:00", None, 79),
        ),
        ("NVRM: Xid (PCI:0000:c3:00): 31, pid=4711, name=python, Ch 00000008", ("0000:c3:00", None, 31)),
        ("NVRM: Xid (PCI:0001:C3:00 GPU-I:05): 94, pid=1, Contained", ("0001:c3:00", 5, 94)),
        ("NVRM: Xid (0000:01:00): 13, 0005 00000000", ("0000:01:00", None, 13)),
        ("NVRM: GPU 0000:65:00.0: GPU has fallen off the bus.", ("0000:65:00", None, 79)),
        ("NVRM: GPU at PCI:0000:65:00: GPU-12345678", None),
        ("usb 1-1: Xid 79", None),
        ("", None),
    ],
)
def test_the_kernels_log(line, expected):
    assert from_kernel_log(line) == expected


def test_the_library_and_the_kernel_name_a_place_differently():
    assert place("00000000:C3:00.0") == place("0000:c3:00") == "0000:c3:00"
