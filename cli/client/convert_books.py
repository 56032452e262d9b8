"""Messages of `books.proto` from and to the values of `cli.books`. No decisions."""

from cli.books import (
    Act,
    AttemptEarning,
    GpuClaim,
    Health,
    HostCount,
    JobCost,
    JobCount,
    ModelPrice,
    Movement,
    OwnedHost,
    Purse,
    SpendingCap,
    TokenFacts,
)
from cli.client.convert import ATTEMPT_STATES, CAUSES, END_REASONS, JOB_STATES, choice
from cli.client.convert_people import HOST_STATES, host_of
from cli.model import AttemptState, Cause, EndReason, HostState, JobState
from usance.v1 import books_pb2, types_pb2


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
        scopes=tuple(message.scopes),
        last_used_at_ms=message.last_used_at_ms,
    )


def act_of(message: books_pb2.Act) -> Act:
    return Act(
        act_id=message.act_id,
        happened_at_ms=message.happened_at_ms,
        who=message.who,
        token_id=message.token_id,
        address=message.address,
        rpc=message.rpc,
        request=message.request,
        result=message.result,
        request_id=message.request_id,
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
        refunded_micro=message.refunded_micro,
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


def cap_of(message: books_pb2.SpendingCap) -> SpendingCap:
    return SpendingCap(
        month_micro=message.month_micro,
        alert_percent=message.alert_percent,
        used_micro=message.used_micro,
        month_began_at_ms=message.month_began_at_ms,
        month_ends_at_ms=message.month_ends_at_ms,
    )


def price_of(message: books_pb2.ModelPrice) -> ModelPrice:
    return ModelPrice(
        gpu_model=message.gpu_model,
        host_count=message.host_count,
        gpu_count=message.gpu_count,
        gpu_count_free=message.gpu_count_free,
        gpu_hour_price_micro_min=message.gpu_hour_price_micro_min,
        gpu_hour_price_micro_median=message.gpu_hour_price_micro_median,
        gpu_hour_price_micro_max=message.gpu_hour_price_micro_max,
        simulated=message.simulated,
    )


def host_state_to(state: HostState | None) -> types_pb2.HostState.ValueType:
    return types_pb2.HostState.Value(f"HOST_STATE_{state or HostState.UNSPECIFIED}")


def gpu_claim_of(message: books_pb2.GpuClaim) -> GpuClaim:
    return GpuClaim(
        gpu_uuid=message.gpu_uuid,
        host_id=message.host_id,
        owner_host_id=message.owner_host_id,
        since_at_ms=message.since_at_ms,
        same_seller=message.same_seller,
    )


def owned_host_of(message: books_pb2.OwnedHost) -> OwnedHost:
    return OwnedHost(host=host_of(message.host), account_name=message.account_name)


def health_of(message: books_pb2.GetHealthResponse) -> Health:
    return Health(
        started_at_ms=message.started_at_ms,
        version=message.version,
        database=message.database,
        hosts=tuple(
            HostCount(state=choice(HostState, HOST_STATES, each.state), count=each.count)
            for each in message.hosts
        ),
        jobs=tuple(
            JobCount(state=choice(JobState, JOB_STATES, each.state), count=each.count)
            for each in message.jobs
        ),
        queued_since_at_ms=message.queued_since_at_ms,
        transfers=message.transfers,
        transfers_sealed=message.transfers_sealed,
        sum_micro=message.sum_micro,
    )
