"""What became of each job, told in the log under the request it came from, and in that one's trace.

Only what was committed is told, and as often as it was committed: once.
"""

import logging
from collections.abc import Sequence

from coordinator.domain.job import Attempt, Job
from coordinator.domain.states import AttemptState, JobState
from coordinator.store.ports import News
from runtime.logs import FIELDS
from runtime.tracing import Tracer

_LOG = logging.getLogger(__name__)


class Trail:
    def __init__(self, traces: Tracer) -> None:
        self._traces = traces

    def follow(self, news: News, now_ms: int) -> None:
        attempts = {after.job_id: after for _, after in news.attempts}
        for before, after in news.jobs:
            # One that is new may have got its host in the commit that took it in.
            state = JobState.QUEUED if before is None else before.state
            if state is after.state or not after.origin.request_id:
                continue
            attempt = attempts.get(after.id)
            _say(after, attempt)
            if self._traces.is_on and after.origin.traceparent:
                told = _told(after, attempt)
                for name, start_ms in _steps(state, (before or after).queued_ms, after, attempt, now_ms):
                    self._traces.past(name, told, start_ms, now_ms, place=after.origin.traceparent)


def _say(job: Job, attempt: Attempt | None) -> None:
    fields = _told(job, attempt)
    _LOG.info("%s %s is %s: %s", job.origin.request_id, job.id, job.state, job.detail, extra={FIELDS: fields})


def _told(job: Job, attempt: Attempt | None) -> dict[str, str]:
    told = {"request_id": job.origin.request_id, "job_id": job.id, "state": str(job.state)}
    if job.cause is not None:
        told["cause"] = str(job.cause)
    if attempt is not None:
        told |= {"attempt_id": attempt.id, "host_id": attempt.host_id}
    return told


def _steps(
    state: JobState, queued_ms: int, after: Job, attempt: Attempt | None, now_ms: int
) -> Sequence[tuple[str, int]]:
    """What has just come to its end, by the state that the job was in, and when it began."""
    steps = list[tuple[str, int]]()
    if state is JobState.QUEUED:
        steps.append(("placed" if after.state is JobState.STARTING else "waited", queued_ms))
    elif state is JobState.STARTING:
        steps.append(("start", attempt.meter.assigned.wall_ms if attempt else now_ms))
    elif state is JobState.RUNNING:
        ran_ms = attempt.run_ms_reported if attempt and attempt.state is AttemptState.ENDED else 0
        steps.append(("running", now_ms - ran_ms))
    if after.is_over:
        steps.append(("settled", now_ms))
    return steps
