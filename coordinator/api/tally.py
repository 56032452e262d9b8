"""Counts what was committed, as it is committed."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from coordinator.api.metrics import Metrics
from coordinator.api.trail import Trail
from coordinator.domain.job import Attempt, Job
from coordinator.domain.states import AttemptState, JobState
from coordinator.store.ports import News
from runtime.clock import Clock

MICRO = 1_000_000


class Tally:
    """A `Watcher` of the store."""

    def __init__(self, metrics: Metrics, clock: Clock, trail: Trail | None = None) -> None:
        self._metrics = metrics
        self._clock = clock
        self._trail = trail

    def timed(self, kind: str) -> AbstractContextManager[object]:
        return self._metrics.transaction_seconds.labels(kind).time()

    def committed(self, news: News) -> None:
        now_ms = self._clock.wall_ms()
        self._jobs(news.jobs, now_ms)
        for before, after in news.attempts:
            self._attempt(before, after)
        for transfer in news.transfers:
            # A figure to look at; what counts is in the ledger, in whole micro-credits.
            self._metrics.moved.labels(transfer.kind).inc(transfer.gross_micro / MICRO)
        for state in news.links:
            self._metrics.link_changes.labels(state).inc()
        if self._trail is not None:
            self._trail.follow(news, now_ms)

    def _jobs(self, jobs: Sequence[tuple[Job | None, Job]], now_ms: int) -> None:
        metrics = self._metrics
        for before, after in jobs:
            metrics.submitted.inc(before is None)
            # One that is new may have got its host in the commit that took it in.
            if after.state is (JobState.QUEUED if before is None else before.state):
                continue
            waited_s = max(0, now_ms - after.queued_ms) / 1_000
            if after.state is JobState.STARTING:
                metrics.queue_seconds.observe(waited_s)
            elif after.state is JobState.RUNNING:
                metrics.start_seconds.observe(waited_s)
            elif after.is_over and after.cause is not None:
                metrics.ended.labels(after.state, after.cause).inc()

    def _attempt(self, before: Attempt | None, after: Attempt) -> None:
        count = len(after.gpus)
        billed_ms = after.meter.billed_ms - (before.meter.billed_ms if before else 0)
        if billed_ms > 0:
            self._metrics.gpu_billed.inc(count * billed_ms / 1_000)
        if after.state is not AttemptState.ENDED or (before and before.state is AttemptState.ENDED):
            return
        if after.end_reason is not None:
            self._metrics.attempts_ended.labels(after.end_reason).inc()
        reported_ms = max(after.run_ms_reported, after.meter.usage_end_ms)
        self._metrics.gpu_unbilled.inc(count * max(0, reported_ms - after.meter.billed_ms) / 1_000)
