"""The life of a job and of an attempt: every state, every arrow, and why it is taken.

The two tables are the one place that says so. Terminal, live and billable sets are derived from them; the
database's CHECKs, the contract's enumerations and the diagram in docs/job-states.md are tested equal.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never


class JobState(StrEnum):
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class AttemptState(StrEnum):
    ASSIGNED = "assigned"
    PREPARING = "preparing"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


class Cause(StrEnum):
    BUYER = "buyer"
    HOST = "host"
    PLATFORM = "platform"
    UNKNOWN = "unknown"


class EndReason(StrEnum):
    EXITED = "exited"
    CANCELLED = "cancelled"
    BUDGET_SPENT = "budget_spent"
    TIME_LIMIT = "time_limit"
    OUT_OF_MEMORY = "out_of_memory"
    IMAGE_UNAVAILABLE = "image_unavailable"
    COMMAND_UNSTARTABLE = "command_unstartable"
    START_FAILED = "start_failed"
    HOST_LOST = "host_lost"
    HOST_FORGOT = "host_forgot"
    GPU_LOST = "gpu_lost"
    RECLAIMED = "reclaimed"
    PAID_THROUGH = "paid_through"
    SUPERSEDED = "superseded"
    CLAIM_REFUSED = "claim_refused"
    REPLACED = "replaced"
    RESTORED = "restored"


@dataclass(frozen=True, kw_only=True)
class End:
    """What an end reason means: who brought it about, what becomes of the job, and how to say it."""

    cause: Cause
    job_state: JobState
    sentence: str


# EXITED is the one reason whose job state also depends on the exit code: see `job_state_after`.
ENDS: dict[EndReason, End] = {
    EndReason.EXITED: End(
        cause=Cause.BUYER, job_state=JobState.SUCCEEDED, sentence="the command ended by itself"
    ),
    EndReason.CANCELLED: End(
        cause=Cause.BUYER, job_state=JobState.CANCELLED, sentence="the buyer cancelled the job"
    ),
    EndReason.BUDGET_SPENT: End(
        cause=Cause.BUYER, job_state=JobState.EXPIRED, sentence="the budget was used up"
    ),
    EndReason.TIME_LIMIT: End(
        cause=Cause.BUYER, job_state=JobState.EXPIRED, sentence="the job's time limit was reached"
    ),
    EndReason.OUT_OF_MEMORY: End(
        cause=Cause.BUYER,
        job_state=JobState.FAILED,
        sentence="the job used more memory than it had asked for",
    ),
    EndReason.IMAGE_UNAVAILABLE: End(
        cause=Cause.BUYER, job_state=JobState.FAILED, sentence="the image could not be fetched"
    ),
    EndReason.COMMAND_UNSTARTABLE: End(
        cause=Cause.BUYER, job_state=JobState.FAILED, sentence="the command could not be started in the image"
    ),
    EndReason.START_FAILED: End(
        cause=Cause.HOST, job_state=JobState.FAILED, sentence="the host could not start the job"
    ),
    EndReason.HOST_LOST: End(
        cause=Cause.HOST,
        job_state=JobState.FAILED,
        sentence="the host fell silent for longer than the reconnect window",
    ),
    EndReason.HOST_FORGOT: End(
        cause=Cause.HOST, job_state=JobState.FAILED, sentence="the host came back without the job"
    ),
    EndReason.GPU_LOST: End(cause=Cause.HOST, job_state=JobState.FAILED, sentence="a GPU of the job failed"),
    EndReason.RECLAIMED: End(
        cause=Cause.HOST, job_state=JobState.FAILED, sentence="the seller took the machine back"
    ),
    EndReason.PAID_THROUGH: End(
        cause=Cause.UNKNOWN,
        job_state=JobState.FAILED,
        sentence="the host stopped the job because no renewal of its paid time reached it",
    ),
    EndReason.SUPERSEDED: End(
        cause=Cause.PLATFORM, job_state=JobState.FAILED, sentence="a newer attempt took its place"
    ),
    EndReason.CLAIM_REFUSED: End(
        cause=Cause.HOST, job_state=JobState.FAILED, sentence="the host claimed what can't be"
    ),
    EndReason.REPLACED: End(
        cause=Cause.HOST,
        job_state=JobState.FAILED,
        sentence="the host fell silent, and the buyer wanted another without waiting",
    ),
    EndReason.RESTORED: End(
        cause=Cause.PLATFORM,
        job_state=JobState.FAILED,
        sentence="the market was restored from a backup, and how the job went on since is not known",
    ),
}

# It may have ended well in what was lost: it does not begin again without its buyer's word.
NEVER_AGAIN = frozenset({EndReason.RESTORED})


# Ends by the host's fault after which the published rule gives time back. Not REPLACED: there the host may
# well have come back in time, and it was the buyer who would not wait.
CREDITED = frozenset(reason for reason, end in ENDS.items() if end.cause is Cause.HOST) - {EndReason.REPLACED}


class JobStep(StrEnum):
    """What can happen to a job."""

    ASSIGN = "assign"  # a host was found
    RUN = "run"  # the command was seen running
    REQUEUE = "requeue"  # the attempt ended for a cause not the buyer's, and retries remain
    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"
    EXPIRE = "expire"


class AttemptStep(StrEnum):
    """What can happen to an attempt."""

    PREPARE = "prepare"  # the host said that it prepares it
    RUN = "run"  # the command was seen running
    STOP = "stop"  # its end was asked for
    END = "end"  # the host said that it is over, or the host is given up


_J, _S = JobState, JobStep
JOB_TRANSITIONS: dict[tuple[JobState, JobStep], JobState] = {
    (_J.QUEUED, _S.ASSIGN): _J.STARTING,
    (_J.QUEUED, _S.CANCEL): _J.CANCELLED,
    (_J.QUEUED, _S.EXPIRE): _J.EXPIRED,
    (_J.STARTING, _S.RUN): _J.RUNNING,
    (_J.STARTING, _S.REQUEUE): _J.QUEUED,
    (_J.STARTING, _S.SUCCEED): _J.SUCCEEDED,  # so short that it was never seen running
    (_J.STARTING, _S.FAIL): _J.FAILED,
    (_J.STARTING, _S.CANCEL): _J.CANCELLED,
    (_J.STARTING, _S.EXPIRE): _J.EXPIRED,
    (_J.RUNNING, _S.REQUEUE): _J.QUEUED,
    (_J.RUNNING, _S.SUCCEED): _J.SUCCEEDED,
    (_J.RUNNING, _S.FAIL): _J.FAILED,
    (_J.RUNNING, _S.CANCEL): _J.CANCELLED,
    (_J.RUNNING, _S.EXPIRE): _J.EXPIRED,
}

_A, _T = AttemptState, AttemptStep
ATTEMPT_TRANSITIONS: dict[tuple[AttemptState, AttemptStep], AttemptState] = {
    (_A.ASSIGNED, _T.PREPARE): _A.PREPARING,
    (_A.ASSIGNED, _T.RUN): _A.RUNNING,
    (_A.ASSIGNED, _T.STOP): _A.STOPPING,
    (_A.ASSIGNED, _T.END): _A.ENDED,
    (_A.PREPARING, _T.RUN): _A.RUNNING,
    (_A.PREPARING, _T.STOP): _A.STOPPING,
    (_A.PREPARING, _T.END): _A.ENDED,
    (_A.RUNNING, _T.STOP): _A.STOPPING,
    (_A.RUNNING, _T.END): _A.ENDED,
    (_A.STOPPING, _T.END): _A.ENDED,
}

JOB_TERMINAL = frozenset(JobState) - {state for state, _ in JOB_TRANSITIONS}
JOB_LIVE = frozenset(JobState) - JOB_TERMINAL
JOB_CANCELLABLE = frozenset(state for state, step in JOB_TRANSITIONS if step is JobStep.CANCEL)
ATTEMPT_LIVE = frozenset(state for state, _ in ATTEMPT_TRANSITIONS)
ATTEMPT_BILLABLE = frozenset({AttemptState.RUNNING})


class ImpossibleStepError(Exception):
    """Our own bug: somebody asked for an arrow that does not exist."""


def job_after(state: JobState, step: JobStep) -> JobState:
    try:
        return JOB_TRANSITIONS[state, step]
    except KeyError:
        raise ImpossibleStepError(f"a job that is {state} can't {step}") from None


def attempt_after(state: AttemptState, step: AttemptStep) -> AttemptState:
    try:
        return ATTEMPT_TRANSITIONS[state, step]
    except KeyError:
        raise ImpossibleStepError(f"an attempt that is {state} can't {step}") from None


def job_step_at_end(reason: EndReason, exit_code: int | None, retries_left: int) -> JobStep:
    """What becomes of the job when its attempt has ended."""
    end = ENDS[reason]
    if end.cause is not Cause.BUYER and retries_left > 0 and reason not in NEVER_AGAIN:
        return JobStep.REQUEUE
    if reason is EndReason.EXITED:
        return JobStep.SUCCEED if exit_code == 0 else JobStep.FAIL
    match end.job_state:
        case JobState.SUCCEEDED:
            return JobStep.SUCCEED
        case JobState.FAILED:
            return JobStep.FAIL
        case JobState.CANCELLED:
            return JobStep.CANCEL
        case JobState.EXPIRED:
            return JobStep.EXPIRE
        case JobState.QUEUED | JobState.STARTING | JobState.RUNNING:
            raise ImpossibleStepError(f"{reason} can't leave a job {end.job_state}")
        case _ as never:
            assert_never(never)


def end_sentence(reason: EndReason, exit_code: int | None, detail: str = "") -> str:
    """Why it ended, for a person."""
    sentence = ENDS[reason].sentence
    if reason is EndReason.EXITED:
        sentence = f"{sentence} with {_exit_words(exit_code)}"
    return f"{sentence}: {detail}" if detail else sentence


def _exit_words(exit_code: int | None) -> str:
    return "an exit code that could not be learnt" if exit_code is None else f"exit code {exit_code}"
