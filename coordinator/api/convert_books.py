"""Domain values to messages of `books.proto`. (The way in is `validate`.)"""

from coordinator.api.convert_market import attempt_state_to, cause_to, end_reason_to, host_to, job_state_to
from coordinator.domain.account import Token
from coordinator.domain.act import Act
from coordinator.domain.cap import Month, SpendingCap
from coordinator.domain.claim import GpuClaim
from coordinator.domain.host import HostRoom
from coordinator.domain.prices import ModelPrice
from coordinator.services.accounts import named
from coordinator.services.books import AttemptEarning, JobCost
from coordinator.services.operations import Health
from coordinator.services.tokens import is_token
from ledger.entries import Statement
from usance.v1 import books_pb2 as b
from usance.v1 import types_pb2 as t


def token_to(token: Token, used: str) -> b.Token:
    return b.Token(
        token_id=token.id,
        label=token.label,
        created_at_ms=token.created_ms,
        expires_at_ms=token.expires_ms,
        revoked_at_ms=token.revoked_ms,
        current=is_token(token, used),
        scopes=named(token.scopes),
        last_used_at_ms=token.last_used_ms,
    )


def statement_to(page: Statement) -> b.GetStatementResponse:
    return b.GetStatementResponse(
        opening_micro=page.opening_micro,
        closing_micro=page.closing_micro,
        movements=[
            b.Movement(
                transfer_id=str(leg.transfer_id),
                kind=str(leg.kind),
                delta_micro=leg.delta_micro,
                balance_micro=leg.balance_micro,
                job_id=leg.ref,
                reason=leg.reason,
                posted_at_ms=leg.posted_ms,
            )
            for leg in page.legs
        ],
        next_page_token="" if page.next_after_seq is None else str(page.next_after_seq),
    )


def cost_to(cost: JobCost) -> b.JobCost:
    job = cost.job
    return b.JobCost(
        job_id=job.id,
        name=job.spec.name,
        labels=job.spec.labels,
        state=job_state_to(job.state),
        submitted_at_ms=job.submitted_ms,
        charged_micro=job.charged_micro,
        credited_micro=cost.credited_micro,
        billed_ms=cost.billed_ms,
        held_micro=cost.held_micro,
        refunded_micro=cost.refunded_micro,
    )


def earning_to(earning: AttemptEarning) -> b.AttemptEarning:
    attempt = earning.attempt
    return b.AttemptEarning(
        attempt_id=attempt.id,
        host_id=attempt.host_id,
        gpu_model=attempt.gpus[0].model if attempt.gpus else "",
        gpu_count=len(attempt.gpus),
        assigned_at_ms=attempt.meter.assigned.wall_ms,
        state=attempt_state_to(attempt.state),
        end_reason=end_reason_to(attempt.end_reason),
        cause=cause_to(attempt.cause),
        billed_ms=attempt.meter.billed_ms,
        charged_micro=earning.charge.charge_micro,
        fee_micro=earning.charge.fee_micro,
        returned_micro=earning.returned_micro,
    )


def cap_to(cap: SpendingCap | None, used_micro: int, month: Month) -> b.SpendingCap:
    return b.SpendingCap(
        month_micro=cap.month_micro if cap else 0,
        alert_percent=cap.alert_percent if cap else 0,
        used_micro=used_micro,
        month_began_at_ms=month.began_ms,
        month_ends_at_ms=month.ends_ms,
    )


def price_to(price: ModelPrice) -> b.ModelPrice:
    return b.ModelPrice(
        gpu_model=price.gpu_model,
        host_count=price.host_count,
        gpu_count=price.gpu_count,
        gpu_count_free=price.gpu_count_free,
        gpu_hour_price_micro_min=price.price_micro_min,
        gpu_hour_price_micro_median=price.price_micro_median,
        gpu_hour_price_micro_max=price.price_micro_max,
        simulated=price.simulated,
    )


def claim_to(claim: GpuClaim) -> b.GpuClaim:
    return b.GpuClaim(
        gpu_uuid=claim.gpu_uuid,
        host_id=claim.host_id,
        owner_host_id=claim.owner_host_id,
        since_at_ms=claim.first_ms,
        same_seller=claim.account_id == claim.owner_account_id,
    )


def owned_host_to(room: HostRoom, now_ms: int) -> b.OwnedHost:
    return b.OwnedHost(host=host_to(room.host, room, now_ms), account_name=room.host.account_name)


def act_to(act: Act) -> b.Act:
    return b.Act(
        act_id=act.id,
        happened_at_ms=act.happened_ms,
        who=act.who,
        token_id=act.token_id,
        address=act.address,
        rpc=act.rpc,
        request=act.request,
        result=act.result,
        request_id=act.request_id,
    )


def health_to(health: Health, started_ms: int, version: str) -> b.GetHealthResponse:
    return b.GetHealthResponse(
        started_at_ms=started_ms,
        version=version,
        database=health.database,
        hosts=[
            b.HostCount(state=t.HostState.Value(f"HOST_STATE_{state.name}"), count=count)
            for state, count in sorted(health.hosts.items())
        ],
        jobs=[
            b.JobCount(state=job_state_to(state), count=count) for state, count in sorted(health.jobs.items())
        ],
        queued_since_at_ms=health.queued_since_ms,
        transfers=health.transfers,
        transfers_sealed=health.transfers_sealed,
        sum_micro=health.sum_micro,
    )
