"""The exit codes, in one table. `usance run` and `usance wait` otherwise exit with the job's own code.

They keep clear of what programs commonly use themselves: 1 and 2, 64 to 78 (sysexits), 101 (Rust's panic),
124 to 127 (timeout, docker, shells) and 128 + signal.
"""

from enum import IntEnum
from typing import assert_never

from cli.errors import Broken, NotConfirmed, Refused, Unreachable, UsanceError, WrongUse
from cli.model import EndReason, Job, JobState, RefusalCode


class Exit(IntEnum):
    OK = 0
    WRONG_USE = 2
    REFUSED = 110
    NOT_ALLOWED = 111
    NOT_FOUND = 112
    INSUFFICIENT_FUNDS = 113
    UNREACHABLE = 114
    NOT_CONFIRMED = 115
    BROKEN = 116
    NO_MATCH = 117
    CANCELLED = 118
    BUDGET_SPENT = 119
    TIME_LIMIT = 120
    OUT_OF_MEMORY = 121
    UNSTARTABLE = 122
    HOST_LOST = 123
    INTERRUPTED = 130
    PIPE_CLOSED = 141


MEANINGS: dict[Exit, str] = {
    Exit.OK: "It went well; of a job: it ended with exit code 0.",
    Exit.WRONG_USE: "The command line was wrong; nothing was done.",
    Exit.REFUSED: "The market refused the request; the message says why.",
    Exit.NOT_ALLOWED: "The token or session is missing, expired or revoked, the password is not right, or "
    "the account may not do this.",
    Exit.NOT_FOUND: "No such job or account, or not yours.",
    Exit.INSUFFICIENT_FUNDS: "The wallet holds less than the budget asked for, or your spending cap "
    "(`usance budget`) leaves less.",
    Exit.UNREACHABLE: "The coordinator did not answer. A job that runs goes on.",
    Exit.NOT_CONFIRMED: "Nobody agreed to the price: answered no, or no terminal and no --yes.",
    Exit.BROKEN: "A check failed: an answer that can't be right, a bill that does not add up, or an audit "
    "that found something.",
    Exit.NO_MATCH: "No host fits the request now (`quote`, `run --dry-run`), or none came before the "
    "longest wait was over.",
    Exit.CANCELLED: "The job was cancelled.",
    Exit.BUDGET_SPENT: "The job was stopped because its budget was used up.",
    Exit.TIME_LIMIT: "The job was stopped at its own time limit.",
    Exit.OUT_OF_MEMORY: "The job used more memory than it had asked for.",
    Exit.UNSTARTABLE: "The image or the command can't be started: not there, or not executable.",
    Exit.HOST_LOST: "The host failed, vanished or took its machine back, or the market failed, and no retry "
    "was left.",
    Exit.INTERRUPTED: "Interrupted by Ctrl-C. A job that runs goes on: you have only detached.",
    Exit.PIPE_CLOSED: "Who read our output went away. A job that runs goes on.",
}


# What `--json` errors say in `code`, beside the market's own refusals.
ERRORS: dict[str, str] = {
    WrongUse.code: "The command line, the environment, a profile or a file says what can't be meant.",
    NotConfirmed.code: "A person had to agree and did not, or nobody was there to ask.",
    Unreachable.code: "No answer from the coordinator, however often it was asked.",
    Broken.code: "An answer that can't be right, a check that failed, or a mistake of the program's own.",
    RefusalCode.INVALID_FIELD: "The market takes no such value; `faults` names the fields.",
    RefusalCode.UNAUTHENTICATED: "The token or session is missing, unknown, expired or revoked, or the "
    "password is not right.",
    RefusalCode.FORBIDDEN: "The account has not the role for this.",
    RefusalCode.NOT_FOUND: "No such job, host or account, or not yours.",
    RefusalCode.REQUEST_ID_REUSED: "Another request had this request id already.",
    RefusalCode.INSUFFICIENT_FUNDS: "The wallet holds less than is asked for.",
    RefusalCode.SPENDING_CAP: "Your spending cap for the month leaves less (`usance budget`).",
    RefusalCode.JOB_ENDED: "The job has ended, or is being stopped.",
    RefusalCode.ENROLMENT_REFUSED: "The enrolment token is unknown, used or over.",
    RefusalCode.NAME_TAKEN: "Another account has this name.",
    RefusalCode.SUPERSEDED: "Something newer has taken the place of what asks.",
    RefusalCode.RATE_LIMITED: "More was asked for than the operator allows; it was asked again, in vain.",
    RefusalCode.UNAVAILABLE: "The market can't answer just now; it was asked again, and still can't.",
    RefusalCode.INTERNAL: "The market made a mistake; its operator's log says which.",
    RefusalCode.UNSPECIFIED: "A refusal that this version does not know; the sentence says why.",
}


def exit_of_code(code: str) -> Exit:
    """Of an error by its code."""
    for kind in (WrongUse, NotConfirmed, Unreachable, Broken):
        if kind.code == code:
            return exit_of_error(kind(""))
    return _exit_of_refusal(RefusalCode(code))


def exit_of_error(error: UsanceError) -> Exit:
    """Total over the error tree."""
    match error:
        case WrongUse():
            return Exit.WRONG_USE
        case NotConfirmed():
            return Exit.NOT_CONFIRMED
        case Unreachable():
            return Exit.UNREACHABLE
        case Broken():
            return Exit.BROKEN
        case Refused():
            return _exit_of_refusal(error.refusal)
        case _:
            raise AssertionError(f"no exit code for {type(error).__name__}")


def _exit_of_refusal(code: RefusalCode) -> Exit:
    match code:
        case RefusalCode.UNAUTHENTICATED | RefusalCode.FORBIDDEN:
            return Exit.NOT_ALLOWED
        case RefusalCode.NOT_FOUND:
            return Exit.NOT_FOUND
        case RefusalCode.INSUFFICIENT_FUNDS | RefusalCode.SPENDING_CAP:
            return Exit.INSUFFICIENT_FUNDS
        case RefusalCode.UNAVAILABLE | RefusalCode.RATE_LIMITED:
            return Exit.UNREACHABLE
        case RefusalCode.INTERNAL:
            return Exit.BROKEN
        case (
            RefusalCode.UNSPECIFIED
            | RefusalCode.INVALID_FIELD
            | RefusalCode.REQUEST_ID_REUSED
            | RefusalCode.JOB_ENDED
            | RefusalCode.ENROLMENT_REFUSED
            | RefusalCode.NAME_TAKEN
            | RefusalCode.SUPERSEDED
        ):
            return Exit.REFUSED
        case _:
            assert_never(code)


def exit_of_job(job: Job) -> int:
    """What `run` and `wait` exit with for a job that has ended."""
    reason = job.attempts[-1].end_reason if job.attempts else EndReason.UNSPECIFIED
    match job.state:
        case JobState.SUCCEEDED:
            return Exit.OK
        case JobState.CANCELLED:
            return Exit.CANCELLED
        case JobState.EXPIRED:
            return {
                EndReason.BUDGET_SPENT: Exit.BUDGET_SPENT,
                EndReason.TIME_LIMIT: Exit.TIME_LIMIT,
            }.get(reason, Exit.NO_MATCH)
        case JobState.FAILED:
            return _exit_of_failure(job, reason)
        case JobState.QUEUED | JobState.STARTING | JobState.RUNNING | JobState.UNSPECIFIED:
            return Exit.BROKEN
        case _:
            assert_never(job.state)


def _exit_of_failure(job: Job, reason: EndReason) -> int:
    match reason:
        case EndReason.EXITED if job.exit_code:
            return job.exit_code
        case EndReason.OUT_OF_MEMORY:
            return Exit.OUT_OF_MEMORY
        case EndReason.IMAGE_UNAVAILABLE | EndReason.COMMAND_UNSTARTABLE:
            return Exit.UNSTARTABLE
        case EndReason.BUDGET_SPENT:
            return Exit.BUDGET_SPENT
        case EndReason.TIME_LIMIT:
            return Exit.TIME_LIMIT
        case EndReason.CANCELLED:
            return Exit.CANCELLED
        case (
            EndReason.EXITED
            | EndReason.START_FAILED
            | EndReason.HOST_LOST
            | EndReason.HOST_FORGOT
            | EndReason.GPU_LOST
            | EndReason.RECLAIMED
            | EndReason.PAID_THROUGH
            | EndReason.SUPERSEDED
            | EndReason.CLAIM_REFUSED
            | EndReason.REPLACED
            | EndReason.RESTORED
            | EndReason.UNSPECIFIED
        ):
            return Exit.HOST_LOST
        case _:
            assert_never(reason)
