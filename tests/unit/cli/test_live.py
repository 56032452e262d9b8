"""The screen of `usance top`."""

from dataclasses import replace

import pytest

from cli.figures import GpuFigures, JobFigures
from cli.live import History, lasts_ms, live_screen, sparkline
from cli.model import Attempt, AttemptState, Cause, EndReason, Isolation, Job, JobSpec, JobState
from cli.render import lay_out
from cli.screens import before_run_lines
from cli.wishes import GpuRequest

NO_FIGURES = JobFigures(cpu_milli=None, memory_bytes=None, gpus=())


def gpu(**known: int) -> GpuFigures:
    unknown = {
        "utilization_percent": None,
        "memory_used_bytes": None,
        "power_mw": None,
        "temperature_c": None,
    }
    return GpuFigures(gpu_uuid="GPU-1", **{**unknown, **known})


def job(figures: JobFigures | None = None, **changes) -> Job:
    spec = JobSpec(
        name="train",
        image="i",
        command=("a",),
        env=(),
        gpus=GpuRequest(),
        isolation_min=Isolation.CONTAINER,
        gpu_hour_price_micro_max=0,
        budget_micro=2_000_000,
        run_ms_max=7_200_000,
        stop_grace_ms=None,
        retries_max=0,
    )
    attempt = Attempt(
        attempt_id="att_1",
        epoch=1,
        host_id="host_1",
        gpus=(),
        state=AttemptState.RUNNING,
        end_reason=EndReason.UNSPECIFIED,
        cause=Cause.UNSPECIFIED,
        exit_code=None,
        hour_price_micro=1_000_000,
        billed_ms=1_800_000,
        unbilled_ms=0,
        charged_micro=500_000,
        detail="",
        isolation=Isolation.CONTAINER,
        figures=figures,
    )
    plain = Job(
        job_id="job_1",
        spec=spec,
        state=JobState.RUNNING,
        cause=Cause.UNSPECIFIED,
        detail="",
        submitted_at_ms=0,
        ended_at_ms=0,
        charged_micro=500_000,
        attempts=(attempt,),
        exit_code=None,
        limits=(),
    )
    return replace(plain, **changes)


def test_use_is_a_line_of_bars_of_what_is_known():
    assert sparkline([0, 12, 13, 50, None, 99, 100], plain=False) == "▁▁▂▅ ██"
    assert sparkline([0, 50, 100], plain=True) == "_=#"


@pytest.mark.parametrize(
    ("charged_micro", "run_ms_max", "left_ms"),
    [(500_000, 7_200_000, 5_400_000), (1_500_000, 7_200_000, 1_800_000), (500_000, 1_000_000, 0)],
)
def test_a_job_lasts_until_its_money_or_its_time_is_over(charged_micro, run_ms_max, left_ms):
    made = job(charged_micro=charged_micro)
    assert lasts_ms(replace(made, spec=replace(made.spec, run_ms_max=run_ms_max))) == left_ms


def test_what_does_not_run_lasts_for_nobody_knows_how_long():
    assert lasts_ms(job(attempts=(), state=JobState.QUEUED)) is None


def test_figures_of_several_gpus_are_one_row():
    figures = JobFigures(
        cpu_milli=1_450,
        memory_bytes=3 * 2**30,
        gpus=(
            gpu(utilization_percent=40, memory_used_bytes=2**30, power_mw=150_000, temperature_c=60),
            gpu(utilization_percent=81, memory_used_bytes=2**30, power_mw=151_999, temperature_c=71),
            gpu(),
        ),
    )
    history = History()
    history.add([job(figures)])
    summary, _, headings, row = lay_out(live_screen([job(figures)], history, plain=True))
    assert summary == "1 job: 1 running, 0 starting, 0 queued; 1.00 credits an hour now"
    assert headings.split()[:3] == ["JOB", "NAME", "STATE"]
    cells = [cell.strip() for cell in row.split("  ") if cell.strip()]
    assert cells == [
        "job_1", "train", "running", "30 min", "0.50", "1 h 30 min", "1.4", "3 GiB", "60 %", "2 GiB", "301 W",
        "71 C", "=",
    ]  # fmt: skip


def test_unknown_figures_are_no_zeros():
    for figures in (NO_FIGURES, None):
        row = lay_out(live_screen([job(figures)], History(), plain=True))[-1]
        assert row.split()[-6:] == ["-"] * 6


def test_the_history_is_of_the_jobs_that_are_there_and_has_an_end():
    history, used = (
        History(),
        JobFigures(cpu_milli=None, memory_bytes=None, gpus=(gpu(utilization_percent=7),)),
    )
    for _ in range(40):
        history.add([job(used)])
    history.add([job(NO_FIGURES)])
    assert history.of("job_1") == (*[7] * 29, None)
    history.add([])
    assert history.of("job_1") == ()


def test_nothing_runs():
    assert live_screen([], History(), plain=True) == [
        "0 jobs: 0 running, 0 starting, 0 queued; 0.00 credits an hour now"
    ]


def test_before_it_runs_a_job_tells_what_it_waits_for():
    starting = job(state=JobState.STARTING)
    (attempt,) = starting.attempts
    pulls = replace(attempt, state=AttemptState.PREPARING, detail="pulling, 1.5 of 4 GB\x1b[2J")
    assert before_run_lines(replace(starting, attempts=(pulls,))) == [
        "the host: pulling, 1.5 of 4 GB\\x1b[2J"
    ]
    assert before_run_lines(starting) == []
    queued = replace(
        starting, state=JobState.QUEUED, attempts=(), queue_place=2, cheapest_change="ask for less"
    )
    assert before_run_lines(queued) == ["waits, place 2 in the queue", "what would help: ask for less"]
