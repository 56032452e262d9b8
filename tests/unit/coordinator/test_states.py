"""The life of a job and of an attempt: two tables, and everything that must agree with them."""

import itertools
import re

import pytest
from sqlalchemy import CheckConstraint

from coordinator.domain.account import Role
from coordinator.domain.event import EventKind
from coordinator.domain.host import Hold, HostState, Isolation
from coordinator.domain.job import OnHostLoss, Policy
from coordinator.domain.refusal import RefusalCode
from coordinator.domain.states import (
    ATTEMPT_BILLABLE,
    ATTEMPT_LIVE,
    ATTEMPT_TRANSITIONS,
    ENDS,
    JOB_CANCELLABLE,
    JOB_LIVE,
    JOB_TERMINAL,
    JOB_TRANSITIONS,
    AttemptState,
    AttemptStep,
    Cause,
    EndReason,
    ImpossibleStepError,
    JobState,
    JobStep,
    attempt_after,
    end_sentence,
    job_after,
    job_step_at_end,
)
from coordinator.services.offers import OfferOrder
from coordinator.store import tables
from usance.v1 import market_pb2, types_pb2


def test_what_ends_a_job_and_what_does_not():
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED} == JOB_TERMINAL
    assert {JobState.QUEUED, JobState.STARTING, JobState.RUNNING} == JOB_LIVE
    assert JOB_CANCELLABLE == JOB_LIVE, "a buyer can always call a job off until it has ended"
    assert set(AttemptState) - {AttemptState.ENDED} == ATTEMPT_LIVE
    assert {AttemptState.RUNNING} == ATTEMPT_BILLABLE


def test_every_state_can_be_reached_and_every_step_is_used():
    assert set(JOB_TRANSITIONS.values()) | {JobState.QUEUED} == set(JobState)
    assert {step for _, step in JOB_TRANSITIONS} == set(JobStep)
    assert set(ATTEMPT_TRANSITIONS.values()) | {AttemptState.ASSIGNED} == set(AttemptState)
    assert {step for _, step in ATTEMPT_TRANSITIONS} == set(AttemptStep)


@pytest.mark.parametrize(("state", "step"), list(itertools.product(JobState, JobStep)))
def test_a_job_takes_the_arrows_of_the_table_and_no_others(state, step):
    if (state, step) in JOB_TRANSITIONS:
        assert job_after(state, step) is JOB_TRANSITIONS[state, step]
    else:
        with pytest.raises(ImpossibleStepError, match=f"{state} can't {step}"):
            job_after(state, step)


@pytest.mark.parametrize(("state", "step"), list(itertools.product(AttemptState, AttemptStep)))
def test_an_attempt_takes_the_arrows_of_the_table_and_no_others(state, step):
    if (state, step) in ATTEMPT_TRANSITIONS:
        assert attempt_after(state, step) is ATTEMPT_TRANSITIONS[state, step]
    else:
        with pytest.raises(ImpossibleStepError, match=f"{state} can't {step}"):
            attempt_after(state, step)


def test_every_live_attempt_can_end():
    """Whatever a host does, or stops doing, its GPUs become free again."""
    assert all((state, AttemptStep.END) in ATTEMPT_TRANSITIONS for state in ATTEMPT_LIVE)


@pytest.mark.parametrize(
    ("enum", "message", "prefix"),
    [
        (JobState, types_pb2.JobState, "JOB_STATE_"),
        (AttemptState, types_pb2.AttemptState, "ATTEMPT_STATE_"),
        (Cause, types_pb2.Cause, "CAUSE_"),
        (EndReason, types_pb2.EndReason, "END_REASON_"),
        (HostState, types_pb2.HostState, "HOST_STATE_"),
        (Role, types_pb2.Role, "ROLE_"),
        (RefusalCode, types_pb2.RefusalCode, "REFUSAL_CODE_"),
        (Isolation, types_pb2.Isolation, "ISOLATION_"),
        (EventKind, market_pb2.EventKind, "EVENT_KIND_"),
        (Policy, types_pb2.Policy, "POLICY_"),
        (OnHostLoss, types_pb2.OnHostLoss, "ON_HOST_LOSS_"),
        (OfferOrder, market_pb2.OfferOrder, "OFFER_ORDER_"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_contract_has_the_same_words(enum, message, prefix):
    names = {value.name for value in message.DESCRIPTOR.values if value.number}
    assert names == {f"{prefix}{member.name}" for member in enum}


def test_isolation_is_numbered_as_in_the_contract():
    assert {member.name: int(member) for member in Isolation} == {
        value.name.removeprefix("ISOLATION_"): value.number
        for value in types_pb2.Isolation.DESCRIPTOR.values
        if value.number
    }


@pytest.mark.parametrize(
    ("table", "name", "members"),
    [
        ("job", "state", JobState),
        ("job", "cause", Cause),
        ("attempt", "state", AttemptState),
        ("attempt", "stop_reason", EndReason),
        ("attempt", "end_reason", EndReason),
        ("attempt", "cause", Cause),
        ("event", "kind", EventKind),
        ("event", "job_state", JobState),
        ("event", "cause", Cause),
        ("host", "state", tables.LINK_STATES),
        ("host", "hold", Hold),
        ("account_role", "role", Role),
    ],
)
def test_the_database_knows_the_same_words(table, name, members):
    (check,) = [
        str(constraint.sqltext)
        for constraint in tables.metadata.tables[table].c[name].constraints
        if isinstance(constraint, CheckConstraint)
    ]
    assert set(re.findall(r"'([a-z_]+)'", check)) == {str(member) for member in members}


def test_the_database_derives_live_and_ended_from_the_tables():
    (ended,) = [
        str(constraint.sqltext)
        for constraint in tables.job.constraints
        if isinstance(constraint, CheckConstraint) and constraint.name == "job_ended_ck"
    ]
    assert set(re.findall(r"'([a-z]+)'", ended)) == {str(state) for state in JOB_TERMINAL}
    (one_live,) = [i for i in tables.attempt.indexes if i.name == "attempt_one_live_per_job_uq"]
    where = str(one_live.dialect_options["sqlite"]["where"])
    assert set(re.findall(r"'([a-z]+)'", where)) == {str(state) for state in ATTEMPT_LIVE}


# The cause decides who pays; types.proto says each beside its reason.
CAUSES = {
    EndReason.EXITED: Cause.BUYER,
    EndReason.CANCELLED: Cause.BUYER,
    EndReason.BUDGET_SPENT: Cause.BUYER,
    EndReason.TIME_LIMIT: Cause.BUYER,
    EndReason.OUT_OF_MEMORY: Cause.BUYER,
    EndReason.IMAGE_UNAVAILABLE: Cause.BUYER,
    EndReason.COMMAND_UNSTARTABLE: Cause.BUYER,
    EndReason.START_FAILED: Cause.HOST,
    EndReason.HOST_LOST: Cause.HOST,
    EndReason.HOST_FORGOT: Cause.HOST,
    EndReason.GPU_LOST: Cause.HOST,
    EndReason.RECLAIMED: Cause.HOST,
    EndReason.PAID_THROUGH: Cause.UNKNOWN,
    EndReason.SUPERSEDED: Cause.PLATFORM,
    EndReason.CLAIM_REFUSED: Cause.HOST,
    EndReason.REPLACED: Cause.HOST,
    EndReason.RESTORED: Cause.PLATFORM,
}


def test_every_end_has_a_cause_and_a_sentence():
    assert {reason: end.cause for reason, end in ENDS.items()} == CAUSES
    assert all(end.job_state in JOB_TERMINAL and end.sentence for end in ENDS.values())
    assert len({end.sentence for end in ENDS.values()}) == len(EndReason), "each says something of its own"


@pytest.mark.parametrize("reason", EndReason)
@pytest.mark.parametrize("retries_left", [0, 1])
def test_a_retry_is_for_what_is_not_the_buyers_doing(reason, retries_left):
    step = job_step_at_end(reason, None, retries_left)
    # What may have ended well in what was lost does not begin again without its buyer's word.
    again = CAUSES[reason] is not Cause.BUYER and reason is not EndReason.RESTORED
    assert (step is JobStep.REQUEUE) == (retries_left > 0 and again)
    for state in (JobState.STARTING, JobState.RUNNING):
        job_after(state, step)  # whatever comes, there is an arrow for it


@pytest.mark.parametrize(
    ("exit_code", "step", "words"),
    [
        (0, JobStep.SUCCEED, "exit code 0"),
        (3, JobStep.FAIL, "exit code 3"),
        (None, JobStep.FAIL, "an exit code that could not be learnt"),
    ],
)
def test_a_command_that_ends_by_itself_decides_by_its_exit_code(exit_code, step, words):
    assert job_step_at_end(EndReason.EXITED, exit_code, 5) is step
    assert end_sentence(EndReason.EXITED, exit_code) == f"the command ended by itself with {words}"


def test_a_sentence_takes_the_hosts_words_after_it():
    assert end_sentence(EndReason.GPU_LOST, None, "Xid 79") == "a GPU of the job failed: Xid 79"
