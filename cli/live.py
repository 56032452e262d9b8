"""The screen of `usance top`: what runs, how it goes, and what it costs. Pure."""

from collections import deque
from collections.abc import Callable, Sequence

from cli.figures import JobFigures
from cli.model import Attempt, AttemptState, Job, JobState
from cli.render import Part, amount, duration, plural, safe, size, table, words

_NOTHING = "-"
_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.:-=+*#"
_LOOKS = 30
_HOUR_MS = 3_600_000


class History:
    """How much of its GPUs each job has used, look by look."""

    def __init__(self) -> None:
        self._used: dict[str, deque[int | None]] = {}

    def add(self, jobs: Sequence[Job]) -> None:
        """One look; jobs that are not in it any more are forgotten."""
        known, self._used = self._used, {}
        for job in jobs:
            used = known.get(job.job_id, deque(maxlen=_LOOKS))
            figures = figures_of(job)
            used.append(figures.utilization_percent if figures else None)
            self._used[job.job_id] = used

    def of(self, job_id: str) -> Sequence[int | None]:
        return tuple(self._used.get(job_id, ()))


def sparkline(percents: Sequence[int | None], *, plain: bool) -> str:
    bars = _PLAIN_BARS if plain else _BARS
    return "".join(
        " " if percent is None else bars[min(percent, 99) * len(bars) // 100] for percent in percents
    )


def live_screen(jobs: Sequence[Job], history: History, *, plain: bool) -> list[Part]:
    rows = [_row(job, sparkline(history.of(job.job_id), plain=plain)) for job in jobs]
    headings = (
        "JOB",
        "NAME",
        "STATE",
        "RUN TIME",
        "COST",
        "LASTS",
        "CPU",
        "MEMORY",
        "GPU",
        "GPU MEMORY",
        "POWER",
        "WARM",
        "GPU USE",
    )
    return [_summary(jobs), *(["", *table(headings, rows)] if rows else [])]


def _summary(jobs: Sequence[Job]) -> str:
    counts = [
        f"{sum(job.state is state for job in jobs)} {words(state)}"
        for state in (JobState.RUNNING, JobState.STARTING, JobState.QUEUED)
    ]
    rate = sum(attempt.hour_price_micro for job in jobs if (attempt := running(job)) is not None)
    return f"{plural(len(jobs), 'job')}: {', '.join(counts)}; {amount(rate)} credits an hour now"


def running(job: Job) -> Attempt | None:
    attempt = job.attempts[-1] if job.attempts else None
    return attempt if attempt is not None and attempt.state is AttemptState.RUNNING else None


def figures_of(job: Job) -> JobFigures | None:
    attempt = running(job)
    return attempt.figures if attempt is not None else None


def lasts_ms(job: Job) -> int | None:
    """Until the money or the time is over."""
    attempt = running(job)
    if attempt is None or not attempt.hour_price_micro:
        return None
    left_micro = job.spec.budget_micro - job.charged_micro
    by_money_ms = left_micro * _HOUR_MS // attempt.hour_price_micro
    return max(0, min(by_money_ms, job.spec.time_limit_ms - attempt.billed_ms))


def _row(job: Job, bars: str) -> tuple[str, ...]:
    figures, left_ms = figures_of(job), lasts_ms(job)
    billed_ms = sum(attempt.billed_ms for attempt in job.attempts)
    return (
        job.job_id,
        safe(job.spec.name),
        words(job.state),
        duration(billed_ms - billed_ms % 1_000),
        amount(job.charged_micro),
        _NOTHING if left_ms is None else duration(left_ms - left_ms % 1_000),
        *_figures(figures),
        bars.rstrip(),
    )


def _figures(figures: JobFigures | None) -> tuple[str, ...]:
    if figures is None:
        return (_NOTHING,) * 6
    return (
        _known(figures.cpu_milli, lambda milli: f"{milli // 1_000}.{milli % 1_000 // 100}"),
        _known(figures.memory_bytes, size),
        _known(figures.utilization_percent, lambda percent: f"{percent} %"),
        _known(figures.gpu_memory_bytes, size),
        _known(figures.power_mw, lambda mw: f"{mw // 1_000} W"),
        _known(figures.temperature_c, lambda celsius: f"{celsius} C"),
    )


def _known(figure: int | None, shown: Callable[[int], str]) -> str:
    return _NOTHING if figure is None else shown(figure)
