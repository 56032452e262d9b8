"""Exit codes: total, distinct, and clear of what programs use themselves."""

import pytest

from cli import errors
from cli.exits import MEANINGS, Exit, exit_of_error, exit_of_job
from cli.model import (
    Attempt,
    AttemptState,
    Cause,
    EndReason,
    Isolation,
    Job,
    JobSpec,
    JobState,
    RefusalCode,
)
from cli.wishes import GpuRequest


def _job(state: JobState, reason: EndReason | None = None, exit_code: int | None = None) -> Job:
    attempt = Attempt(
        attempt_id="a",
        epoch=1,
        host_id="h",
        gpus=(),
        state=AttemptState.ENDED,
        end_reason=reason or EndReason.UNSPECIFIED,
        cause=Cause.BUYER,
        exit_code=exit_code,
        hour_price_micro=1,
        billed_ms=0,
        unbilled_ms=0,
        charged_micro=0,
        detail="",
        isolation=Isolation.CONTAINER,
    )
    spec = JobSpec(
        name="n",
        image="i",
        command=("c",),
        env=(),
        gpus=GpuRequest(),
        isolation_min=Isolation.CONTAINER,
        gpu_hour_price_micro_max=0,
        budget_micro=1,
        run_ms_max=0,
        stop_grace_ms=None,
        retries_max=0,
    )
    return Job(
        job_id="j",
        spec=spec,
        state=state,
        cause=Cause.BUYER,
        detail="",
        submitted_at_ms=0,
        ended_at_ms=1,
        charged_micro=0,
        attempts=(attempt,) if reason else (),
        exit_code=exit_code,
        limits=(),
    )


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (_job(JobState.SUCCEEDED, EndReason.EXITED, 0), 0),
        (_job(JobState.FAILED, EndReason.EXITED, 37), 37),
        (_job(JobState.FAILED, EndReason.EXITED, None), Exit.HOST_LOST),
        (_job(JobState.CANCELLED, EndReason.CANCELLED, 143), Exit.CANCELLED),
        (_job(JobState.CANCELLED), Exit.CANCELLED),
        (_job(JobState.EXPIRED), Exit.NO_MATCH),
        (_job(JobState.EXPIRED, EndReason.BUDGET_SPENT, 137), Exit.BUDGET_SPENT),
        (_job(JobState.EXPIRED, EndReason.TIME_LIMIT), Exit.TIME_LIMIT),
        (_job(JobState.EXPIRED, EndReason.HOST_LOST), Exit.NO_MATCH),
        (_job(JobState.FAILED, EndReason.OUT_OF_MEMORY, 137), Exit.OUT_OF_MEMORY),
        (_job(JobState.FAILED, EndReason.IMAGE_UNAVAILABLE), Exit.UNSTARTABLE),
        (_job(JobState.FAILED, EndReason.HOST_LOST), Exit.HOST_LOST),
    ],
)
def test_exit_of_job(job, code):
    assert exit_of_job(job) == code


def test_every_end_reason_and_refusal_has_a_code():
    for reason in EndReason:
        assert exit_of_job(_job(JobState.FAILED, reason)) != 0
    for refusal in RefusalCode:
        assert exit_of_error(errors.Refused(refusal, "")) != 0
    for kind in (errors.WrongUse, errors.NotConfirmed, errors.Unreachable, errors.Broken):
        assert exit_of_error(kind("")) != 0


def test_codes_are_explained_and_keep_clear_of_common_ones():
    assert set(MEANINGS) == set(Exit)
    ours = {
        code for code in Exit if code not in {Exit.OK, Exit.WRONG_USE, Exit.INTERRUPTED, Exit.PIPE_CLOSED}
    }
    assert all(102 <= code <= 123 for code in ours)
