"""Messages of `usance.v1` from and to the values of `cli.model`. No decisions."""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TypeVar

from cli.client.convert_figures import figures_of, refund_of
from cli.model import (
    Attempt,
    AttemptState,
    Bill,
    BillAttempt,
    BillCredit,
    BillLine,
    Cause,
    EndReason,
    Event,
    EventKind,
    Gpu,
    Isolation,
    Job,
    JobSpec,
    JobState,
    LimitCount,
    LogEnd,
    LogPiece,
    LogStream,
    LogTotals,
    Offer,
    OfferFilter,
    Quote,
)
from cli.wishes import ANY_HOST, GpuRequest, HostRequest, Network, OnHostLoss, Policy
from runtime.evidence import GpuUse, UsageRecord
from usance.v1 import market_pb2, types_pb2

_Choice = TypeVar("_Choice", bound=StrEnum)


def choice(kind: type[_Choice], numbers: dict[int, _Choice], number: int) -> _Choice:
    # A value of a newer version is UNSPECIFIED here, as types.proto says.
    return numbers.get(number, kind("UNSPECIFIED"))


def numbers(kind: type[_Choice], prefix: str, values: dict[str, int]) -> dict[int, _Choice]:
    return {number: kind(name.removeprefix(prefix)) for name, number in values.items()}


CAUSES = numbers(Cause, "CAUSE_", dict(types_pb2.Cause.items()))
_ISOLATIONS = numbers(Isolation, "ISOLATION_", dict(types_pb2.Isolation.items()))
JOB_STATES = numbers(JobState, "JOB_STATE_", dict(types_pb2.JobState.items()))
ATTEMPT_STATES = numbers(AttemptState, "ATTEMPT_STATE_", dict(types_pb2.AttemptState.items()))
END_REASONS = numbers(EndReason, "END_REASON_", dict(types_pb2.EndReason.items()))
_EVENT_KINDS = numbers(EventKind, "EVENT_KIND_", dict(market_pb2.EventKind.items()))
_POLICIES = numbers(Policy, "POLICY_", dict(types_pb2.Policy.items()))
_ON_HOST_LOSS = numbers(OnHostLoss, "ON_HOST_LOSS_", dict(types_pb2.OnHostLoss.items()))
_NETWORKS = numbers(Network, "NETWORK_", dict(types_pb2.Network.items()))
_LOG_STREAMS = numbers(LogStream, "LOG_STREAM_", dict(types_pb2.LogStream.items()))


def isolation_to(isolation: Isolation) -> types_pb2.Isolation.ValueType:
    return types_pb2.Isolation.Value(f"ISOLATION_{isolation}")


def gpu_request_to(request: GpuRequest) -> types_pb2.GpuRequest:
    return types_pb2.GpuRequest(
        count=request.count,
        model=request.model,
        vram_bytes_min=request.vram_bytes_min,
        compute_capability_min=request.compute_capability_min,
        simulated=request.simulated,
    )


def host_request_to(request: HostRequest) -> types_pb2.HostRequest | None:
    """Nothing where nothing is asked: the field stays unset."""
    if request == ANY_HOST:
        return None
    return types_pb2.HostRequest(
        driver_version_min=request.driver_version_min,
        cuda_version_min=request.cuda_version_min,
        regions=request.regions,
        reliability_ppm_min=request.reliability_ppm_min,
        labels=dict(request.labels),
    )


def host_request_of(message: types_pb2.HostRequest) -> HostRequest:
    return HostRequest(
        driver_version_min=message.driver_version_min,
        cuda_version_min=message.cuda_version_min,
        regions=tuple(message.regions),
        reliability_ppm_min=message.reliability_ppm_min,
        labels=tuple(sorted(message.labels.items())),
    )


def offer_filter_to(wanted: OfferFilter, page_size: int) -> market_pb2.ListOffersRequest:
    return market_pb2.ListOffersRequest(
        gpus=gpu_request_to(wanted.gpus),
        isolation_min=isolation_to(wanted.isolation_min),
        gpu_hour_price_micro_max=wanted.gpu_hour_price_micro_max,
        host=host_request_to(wanted.host),
        order=market_pb2.OfferOrder.Value(f"OFFER_ORDER_{wanted.order}"),
        page_size=page_size,
        network_min=types_pb2.Network.Value(f"NETWORK_{wanted.network_min}"),
        image=wanted.image,
        run_ms=wanted.run_ms,
    )


def spec_to(spec: JobSpec) -> types_pb2.JobSpec:
    return types_pb2.JobSpec(
        name=spec.name,
        image=spec.image,
        command=spec.command,
        env=dict(spec.env),
        gpus=gpu_request_to(spec.gpus),
        isolation_min=isolation_to(spec.isolation_min),
        gpu_hour_price_micro_max=spec.gpu_hour_price_micro_max,
        budget_micro=spec.budget_micro,
        run_ms_max=spec.run_ms_max,
        stop_grace_ms=spec.stop_grace_ms,
        retries_max=spec.retries_max,
        queue_ms_max=spec.queue_ms_max,
        host=host_request_to(spec.host),
        policy=types_pb2.Policy.Value(f"POLICY_{spec.policy}"),
        priority=spec.priority,
        on_host_loss=types_pb2.OnHostLoss.Value(f"ON_HOST_LOSS_{spec.on_host_loss}"),
        labels=dict(spec.labels),
        note=spec.note,
        memory_bytes=spec.memory_bytes,
        cpu_milli=spec.cpu_milli,
        network=types_pb2.Network.Value(f"NETWORK_{spec.network}"),
        network_destinations=spec.network_destinations,
    )


def spec_of(message: types_pb2.JobSpec) -> JobSpec:
    return JobSpec(
        name=message.name,
        image=message.image,
        command=tuple(message.command),
        env=tuple(sorted(message.env.items())),
        gpus=GpuRequest(
            count=message.gpus.count,
            model=message.gpus.model,
            vram_bytes_min=message.gpus.vram_bytes_min,
            compute_capability_min=message.gpus.compute_capability_min,
            simulated=message.gpus.simulated,
        ),
        isolation_min=choice(Isolation, _ISOLATIONS, message.isolation_min),
        gpu_hour_price_micro_max=message.gpu_hour_price_micro_max,
        budget_micro=message.budget_micro,
        run_ms_max=message.run_ms_max,
        stop_grace_ms=message.stop_grace_ms if message.HasField("stop_grace_ms") else None,
        retries_max=message.retries_max,
        queue_ms_max=message.queue_ms_max,
        host=host_request_of(message.host),
        policy=choice(Policy, _POLICIES, message.policy),
        priority=message.priority,
        on_host_loss=choice(OnHostLoss, _ON_HOST_LOSS, message.on_host_loss),
        labels=tuple(sorted(message.labels.items())),
        note=message.note,
        memory_bytes=message.memory_bytes,
        cpu_milli=message.cpu_milli,
        network=choice(Network, _NETWORKS, message.network),
        network_destinations=tuple(message.network_destinations),
    )


def offer_of(message: market_pb2.Offer) -> Offer:
    return Offer(
        host_id=message.host_id,
        gpu_model=message.gpu_model,
        gpu_count_free=message.gpu_count_free,
        vram_bytes=message.vram_bytes,
        simulated=message.simulated,
        gpu_hour_price_micro=message.gpu_hour_price_micro,
        isolation=choice(Isolation, _ISOLATIONS, message.isolation),
        region=message.region,
        executor=message.executor,
        run_ms_max=message.run_ms_max,
        driver_version=message.driver_version,
        cuda_version=message.cuda_version,
        reliability_ppm=message.reliability_ppm,
        labels=tuple(sorted(message.labels.items())),
        compute_capability=message.compute_capability,
        reclaim_notice_ms=message.reclaim_notice_ms,
        network_max=choice(Network, _NETWORKS, message.network_max),
        network_destinations=tuple(message.network_destinations),
        download_bps=message.download_bps if message.HasField("download_bps") else None,
        upload_bps=message.upload_bps if message.HasField("upload_bps") else None,
        network_measured=message.network_measured,
        closes_at_ms=message.closes_at_ms,
        images_allowed=tuple(message.images_allowed),
        images_denied=tuple(message.images_denied),
    )


def limit_of(message: market_pb2.LimitCount) -> LimitCount:
    return LimitCount(limit=message.limit, host_count=message.host_count, remedy=message.remedy)


def quote_of(message: market_pb2.QuoteJobResponse) -> Quote:
    return Quote(
        offer=offer_of(message.offer) if message.HasField("offer") else None,
        hour_price_micro=message.hour_price_micro,
        hold_micro=message.hold_micro,
        run_ms_affordable=message.run_ms_affordable,
        hosts_considered=message.hosts_considered,
        limits=tuple(map(limit_of, message.limits)),
        fee_ppm=message.fee_ppm,
        cheapest_change=message.cheapest_change,
    )


def attempt_of(message: market_pb2.Attempt) -> Attempt:
    return Attempt(
        attempt_id=message.attempt_id,
        epoch=message.epoch,
        host_id=message.host_id,
        gpus=tuple(
            Gpu(uuid=gpu.uuid, model=gpu.model, vram_bytes=gpu.vram_bytes, simulated=gpu.simulated)
            for gpu in message.gpus
        ),
        state=choice(AttemptState, ATTEMPT_STATES, message.state),
        end_reason=choice(EndReason, END_REASONS, message.end_reason),
        cause=choice(Cause, CAUSES, message.cause),
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        hour_price_micro=message.hour_price_micro,
        billed_ms=message.billed_ms,
        unbilled_ms=message.unbilled_ms,
        charged_micro=message.charged_micro,
        detail=message.detail,
        isolation=choice(Isolation, _ISOLATIONS, message.isolation),
        figures=figures_of(message.figures) if message.HasField("figures") else None,
        figures_at_ms=message.figures_at_ms,
    )


def job_of(message: market_pb2.Job) -> Job:
    return Job(
        job_id=message.job_id,
        spec=spec_of(message.spec),
        state=choice(JobState, JOB_STATES, message.state),
        cause=choice(Cause, CAUSES, message.cause),
        detail=message.detail,
        submitted_at_ms=message.submitted_at_ms,
        ended_at_ms=message.ended_at_ms,
        charged_micro=message.charged_micro,
        attempts=tuple(map(attempt_of, message.attempts)),
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        limits=tuple(map(limit_of, message.limits)),
        queue_place=message.queue_place,
        cheapest_change=message.cheapest_change,
        secret_names=tuple(message.secret_names),
        request_id=message.request_id,
    )


def record_of(message: types_pb2.UsageRecord) -> UsageRecord:
    return UsageRecord(
        number=message.number,
        start_ms=message.start_ms,
        end_ms=message.end_ms,
        gpus=tuple(
            GpuUse(
                gpu_uuid=gpu.gpu_uuid,
                utilization_percent=(
                    gpu.utilization_percent if gpu.HasField("utilization_percent") else None
                ),
                memory_used_bytes=gpu.memory_used_bytes if gpu.HasField("memory_used_bytes") else None,
                energy_mj=gpu.energy_mj if gpu.HasField("energy_mj") else None,
            )
            for gpu in message.gpus
        ),
        previous_digest=message.previous_digest,
        digest=message.digest,
    )


def bill_line_of(message: market_pb2.BillLine) -> BillLine:
    return BillLine(
        attempt_id=message.attempt_id,
        record=record_of(message.record),
        witnessed_ms=message.witnessed_ms,
        billed_through_ms=message.billed_through_ms,
        charge_micro=message.charge_micro,
        fee_micro=message.fee_micro,
        earning_micro=message.earning_micro,
        transfer_id=message.transfer_id,
    )


def bill_of(message: market_pb2.Bill) -> Bill:
    return Bill(
        job_id=message.job_id,
        final=message.final,
        held_micro=message.held_micro,
        charged_micro=message.charged_micro,
        released_micro=message.released_micro,
        attempts=tuple(
            BillAttempt(
                attempt_id=attempt.attempt_id,
                epoch=attempt.epoch,
                host_id=attempt.host_id,
                gpu_uuids=tuple(attempt.gpu_uuids),
                hour_price_micro=attempt.hour_price_micro,
                fee_ppm=attempt.fee_ppm,
                run_ms_affordable=attempt.run_ms_affordable,
                run_ms_max=attempt.run_ms_max,
                lines=tuple(map(bill_line_of, attempt.lines)),
                credits=tuple(map(_bill_credit_of, attempt.credits)),
                end_reason=choice(EndReason, END_REASONS, attempt.end_reason),
            )
            for attempt in message.attempts
        ),
        credited_micro=message.credited_micro,
        refunded_micro=message.refunded_micro,
        refunds=tuple(map(refund_of, message.refunds)),
    )


def joined_bill(pages: Sequence[Bill]) -> Bill:
    """The last page with the lines and credits of all."""
    return replace(
        pages[-1],
        attempts=tuple(
            replace(
                attempt,
                lines=tuple(line for page in pages for line in _same(page, attempt).lines),
                credits=tuple(credit for page in pages for credit in _same(page, attempt).credits),
            )
            for attempt in pages[-1].attempts
        ),
    )


def _same(page: Bill, wanted: BillAttempt) -> BillAttempt:
    """The attempt as a page has it, which may be from before it was made."""
    found = (attempt for attempt in page.attempts if attempt.attempt_id == wanted.attempt_id)
    return next(found, replace(wanted, lines=(), credits=()))


def _bill_credit_of(message: market_pb2.BillCredit) -> BillCredit:
    return BillCredit(
        number=message.number,
        earning_micro=message.earning_micro,
        fee_micro=message.fee_micro,
        transfer_id=message.transfer_id,
        reason=message.reason,
    )


def event_of(message: market_pb2.Event) -> Event:
    return Event(
        number=message.number,
        kind=choice(EventKind, _EVENT_KINDS, message.kind),
        happened_at_ms=message.happened_at_ms,
        text=message.text,
        job_state=choice(JobState, JOB_STATES, message.job_state),
        cause=choice(Cause, CAUSES, message.cause),
        attempt_id=message.attempt_id,
        bill_line=bill_line_of(message.bill_line) if message.HasField("bill_line") else None,
    )


def log_piece_of(message: market_pb2.AttemptLog) -> LogPiece:
    return LogPiece(
        attempt_id=message.attempt_id,
        offset=message.chunk.offset,
        stream=choice(LogStream, _LOG_STREAMS, message.chunk.stream),
        data=message.chunk.data,
        stored_at_ms=message.stored_at_ms,
    )


def log_end_of(message: market_pb2.LogEnd) -> LogEnd:
    totals = None
    if message.HasField("totals"):
        totals = LogTotals(
            stdout_bytes=message.totals.stdout_bytes,
            stderr_bytes=message.totals.stderr_bytes,
            stdout_sha256=message.totals.stdout_sha256,
            stderr_sha256=message.totals.stderr_sha256,
        )
    return LogEnd(
        attempt_id=message.attempt_id, complete=message.complete, totals=totals, offset=message.offset
    )
