"""The page about states, made of the coordinator's tables."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from coordinator.domain.states import (
    ATTEMPT_BILLABLE,
    ATTEMPT_LIVE,
    ATTEMPT_TRANSITIONS,
    ENDS,
    JOB_CANCELLABLE,
    JOB_TERMINAL,
    JOB_TRANSITIONS,
    AttemptState,
    EndReason,
    JobState,
)

_State = TypeVar("_State", bound=StrEnum)
_Step = TypeVar("_Step", bound=StrEnum)


def states_page() -> str:
    lines = [
        "# States of a job and of an attempt",
        "",
        "Made from `coordinator/domain/states.py` by `make docs`. A job is what the buyer asked for; an",
        "attempt is one try of it on one host. The contract's comments say what each state means.",
        "",
        "## Job",
        "",
        *_diagram(JOB_TRANSITIONS, JobState.QUEUED, JOB_TERMINAL),
        "",
        f"Over: {_names(JobState, JOB_TERMINAL)}. Can be cancelled: {_names(JobState, JOB_CANCELLABLE)}.",
        "It goes back to the queue when its attempt ended for a cause not the buyer's, and retries remain.",
        "",
        "## Attempt",
        "",
        *_diagram(ATTEMPT_TRANSITIONS, AttemptState.ASSIGNED, frozenset(AttemptState) - ATTEMPT_LIVE),
        "",
        f"Billed: only {_names(AttemptState, ATTEMPT_BILLABLE)}, until its end was asked for.",
        "",
        "## Why an attempt ended",
        "",
        "| reason | cause | the job then, without retries | told as |",
        "| --- | --- | --- | --- |",
    ]
    for reason, end in ENDS.items():
        state = end.job_state.upper()
        if reason is EndReason.EXITED:
            state += " with exit code 0, else FAILED"
        lines.append(f"| `{reason.upper()}` | {end.cause} | {state} | {end.sentence} |")
    return "\n".join(lines) + "\n"


def _diagram(
    transitions: Mapping[tuple[_State, _Step], _State], first: _State, last: frozenset[_State]
) -> list[str]:
    arrows = [
        f"    {state.upper()} --> {after.upper()}: {step}" for (state, step), after in transitions.items()
    ]
    ends = [f"    {state.upper()} --> [*]" for state in type(first) if state in last]
    return ["```mermaid", "stateDiagram-v2", f"    [*] --> {first.upper()}", *arrows, *ends, "```"]


def _names(kind: type[_State], chosen: frozenset[_State]) -> str:
    return ", ".join(f"`{state.upper()}`" for state in kind if state in chosen)
