"""Messages of `books.proto` from and to the values of `cli.books`. No decisions."""

from cli.books import AttemptEarning, JobCost, Movement, Purse, TokenFacts
from cli.client.convert import ATTEMPT_STATES, CAUSES, END_REASONS, JOB_STATES, choice
from cli.model import AttemptState, Cause, EndReason, JobState
from usance.v1 import books_pb2


def purse_to(purse: Purse) -> books_pb2.Purse.ValueType:
    return books_pb2.Purse.Value(f"PURSE_{purse}")


def token_of(message: books_pb2.Token) -> TokenFacts:
    return TokenFacts(
        token_id=message.token_id,
        label=message.label,
        created_at_ms=message.created_at_ms,
        expires_at_ms=message.expires_at_ms,
        revoked_at_ms=message.revoked_at_ms,
        current=message.current,
    )


def movement_of(message: books_pb2.Movement) -> Movement:
    return Movement(
        transfer_id=message.transfer_id,
        kind=message.kind,
        delta_micro=message.delta_micro,
        balance_micro=message.balance_micro,
        job_id=message.job_id,
        reason=message.reason,
        posted_at_ms=message.posted_at_ms,
    )


def cost_of(message: books_pb2.JobCost) -> JobCost:
    return JobCost(
        job_id=message.job_id,
        name=message.name,
        labels=tuple(sorted(message.labels.items())),
        state=choice(JobState, JOB_STATES, message.state),
        submitted_at_ms=message.submitted_at_ms,
        charged_micro=message.charged_micro,
        credited_micro=message.credited_micro,
        billed_ms=message.billed_ms,
        held_micro=message.held_micro,
    )


def earning_of(message: books_pb2.AttemptEarning) -> AttemptEarning:
    return AttemptEarning(
        attempt_id=message.attempt_id,
        host_id=message.host_id,
        gpu_model=message.gpu_model,
        gpu_count=message.gpu_count,
        assigned_at_ms=message.assigned_at_ms,
        state=choice(AttemptState, ATTEMPT_STATES, message.state),
        end_reason=choice(EndReason, END_REASONS, message.end_reason),
        cause=choice(Cause, CAUSES, message.cause),
        billed_ms=message.billed_ms,
        charged_micro=message.charged_micro,
        fee_micro=message.fee_micro,
        returned_micro=message.returned_micro,
    )
