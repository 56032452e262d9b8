"""Domain values to messages of `market.proto`. (The way in is `validate`.)"""

from collections.abc import Mapping, Sequence

from coordinator.domain.account import Account, Balances, Role
from coordinator.domain.event import Event, billed
from coordinator.domain.host import Gpu, Host, HostRoom
from coordinator.domain.hours import open_ms_left
from coordinator.domain.job import Attempt, JobSpec, LogTotals
from coordinator.domain.matching import LimitCount
from coordinator.domain.metering import Line
from coordinator.domain.pricing import charge_between
from coordinator.domain.shelf import Machine, Moment, Shelf, version
from coordinator.domain.states import AttemptState, Cause, EndReason, JobState
from coordinator.services.jobs import JobView
from coordinator.services.offers import Quote
from runtime.evidence import UsageRecord
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t


def spec_to(spec: JobSpec) -> t.JobSpec:
    return t.JobSpec(
        name=spec.name,
        image=spec.image,
        command=spec.command,
        env=spec.env,
        gpus=t.GpuRequest(
            count=spec.gpus.count,
            model=spec.gpus.model,
            vram_bytes_min=spec.gpus.vram_bytes_min,
            compute_capability_min=spec.gpus.compute_capability_min,
            simulated=spec.gpus.simulated,
        ),
        isolation_min=isolation_to(spec.isolation_min),
        gpu_hour_price_micro_max=spec.gpu_hour_price_micro_max,
        budget_micro=spec.budget_micro,
        run_ms_max=spec.run_ms_max,
        stop_grace_ms=spec.stop_grace_ms,
        retries_max=spec.retries_max,
        queue_ms_max=spec.queue_ms_max,
        memory_bytes=spec.memory_bytes,
        cpu_milli=spec.cpu_milli,
        host=t.HostRequest(
            driver_version_min=spec.host.driver_version_min,
            cuda_version_min=spec.host.cuda_version_min,
            regions=spec.host.regions,
            reliability_ppm_min=spec.host.reliability_ppm_min,
            labels=spec.host.labels,
        ),
        policy=t.Policy.Value(f"POLICY_{spec.policy.name}"),
        priority=spec.priority,
        on_host_loss=t.OnHostLoss.Value(f"ON_HOST_LOSS_{spec.on_host_loss.name}"),
        labels=spec.labels,
        note=spec.note,
        network=t.Network.ValueType(spec.network),
        network_destinations=spec.network_destinations,
    )


def isolation_to(value: int) -> t.Isolation.ValueType:
    return t.Isolation.ValueType(value)


def cause_to(cause: Cause | None) -> t.Cause.ValueType:
    return t.CAUSE_UNSPECIFIED if cause is None else t.Cause.Value(f"CAUSE_{cause.name}")


def job_state_to(state: JobState) -> t.JobState.ValueType:
    return t.JobState.Value(f"JOB_STATE_{state.name}")


def attempt_state_to(state: AttemptState) -> t.AttemptState.ValueType:
    return t.AttemptState.Value(f"ATTEMPT_STATE_{state.name}")


def end_reason_to(reason: EndReason | None) -> t.EndReason.ValueType:
    return t.END_REASON_UNSPECIFIED if reason is None else t.EndReason.Value(f"END_REASON_{reason.name}")


def gpu_to(gpu: Gpu) -> t.Gpu:
    return t.Gpu(
        uuid=gpu.uuid,
        model=gpu.model,
        vram_bytes=gpu.vram_bytes,
        simulated=gpu.simulated,
        compute_capability=gpu.compute_capability,
        health=t.GpuHealth.Value(f"GPU_HEALTH_{gpu.health.name}"),
        health_reason=gpu.health_reason,
        board_uuid=gpu.board_uuid,
    )


def offer_to(shelf: Shelf, now_ms: int) -> m.Offer:
    facts, terms, least = shelf.machine.host.facts, shelf.machine.host.terms, shelf.gpus[0]
    left_ms = open_ms_left(terms.hours, now_ms)
    return m.Offer(
        host_id=shelf.host_id,
        gpu_model=shelf.model,
        gpu_count_free=len(shelf.free),
        vram_bytes=least.vram_bytes,
        simulated=shelf.simulated,
        gpu_hour_price_micro=shelf.price,
        isolation=isolation_to(facts.isolation),
        region=facts.region,
        executor=facts.executor,
        run_ms_max=terms.run_ms_max,
        driver_version=facts.driver_version,
        cuda_version=facts.cuda_version,
        reliability_ppm=shelf.machine.reliability_ppm,
        labels=facts.labels,
        compute_capability=min((gpu.compute_capability for gpu in shelf.gpus), key=version),
        reclaim_notice_ms=terms.reclaim_notice_ms,
        network_max=t.Network.ValueType(terms.network_max),
        network_destinations=terms.network_destinations,
        download_bps=facts.download_bps,
        upload_bps=facts.upload_bps,
        network_measured=facts.network_measured,
        closes_at_ms=0 if left_ms is None else now_ms + left_ms,
        images_allowed=terms.images.allowed,
        images_denied=terms.images.denied,
    )


def limits_to(limits: Sequence[LimitCount]) -> list[m.LimitCount]:
    return [m.LimitCount(limit=x.limit, host_count=x.host_count, remedy=x.remedy) for x in limits]


def _shelves(room: HostRoom, now_ms: int) -> Sequence[Shelf]:
    """What the host sells, model by model."""
    return Machine(room, Moment(now_ms)).shelves


def quote_to(quote: Quote, spec: JobSpec, fee_ppm: int, now_ms: int) -> m.QuoteJobResponse:
    offers = _shelves(quote.room, now_ms) if quote.room else []
    return m.QuoteJobResponse(
        offer=next((offer_to(s, now_ms) for s in offers if s.model == quote.gpus[0].model), None),
        hour_price_micro=quote.gpu_hour_price_micro * len(quote.gpus),
        hold_micro=spec.budget_micro,
        run_ms_affordable=quote.run_ms_affordable,
        hosts_considered=quote.hosts_considered,
        limits=limits_to(quote.limits),
        cheapest_change=quote.cheapest_change,
        fee_ppm=fee_ppm,
    )


def job_to(view: JobView) -> m.Job:
    job = view.job
    return m.Job(
        job_id=job.id,
        spec=spec_to(job.spec),
        state=job_state_to(job.state),
        cause=cause_to(job.cause),
        detail=job.detail,
        submitted_at_ms=job.submitted_ms,
        ended_at_ms=job.ended_ms,
        charged_micro=job.charged_micro,
        attempts=[attempt_to(attempt) for attempt in view.attempts],
        exit_code=job.exit_code,
        limits=limits_to(view.limits),
        secret_names=view.job.spec.secret_names,
        queue_place=view.queue_place,
        cheapest_change=view.cheapest_change,
        request_id=job.origin.request_id,
    )


def attempt_to(attempt: Attempt) -> m.Attempt:
    meter = attempt.meter
    return m.Attempt(
        attempt_id=attempt.id,
        epoch=attempt.epoch,
        host_id=attempt.host_id,
        gpus=[gpu_to(gpu) for gpu in attempt.gpus],
        state=attempt_state_to(attempt.state),
        end_reason=end_reason_to(attempt.end_reason),
        cause=cause_to(attempt.cause),
        exit_code=attempt.exit_code,
        hour_price_micro=meter.hour_price_micro,
        billed_ms=meter.billed_ms,
        unbilled_ms=max(0, max(attempt.run_ms_reported, meter.usage_end_ms) - meter.billed_ms),
        charged_micro=charge_between(meter.hour_price_micro, meter.fee_ppm, 0, meter.billed_ms).charge_micro,
        detail=attempt.detail,
        isolation=isolation_to(attempt.isolation),
    )


def event_to(event: Event, lines: Mapping[tuple[str, int], tuple[Line, str]]) -> m.Event:
    what = event.what
    line = lines.get((what.attempt_id, what.bill_line_number or 0))
    return m.Event(
        number=event.number,
        kind=m.EventKind.Value(f"EVENT_KIND_{what.kind.name}"),
        happened_at_ms=event.happened_ms,
        text=what.text if line is None else billed([line[0]]),
        job_state=t.JOB_STATE_UNSPECIFIED if what.job_state is None else job_state_to(what.job_state),
        cause=cause_to(what.cause),
        attempt_id=what.attempt_id,
        bill_line=None if line is None else line_to(what.attempt_id, *line),
    )


def line_to(attempt_id: str, line: Line, transfer_id: str) -> m.BillLine:
    return m.BillLine(
        attempt_id=attempt_id,
        record=record_to(line.record),
        witnessed_ms=line.witnessed_ms,
        billed_through_ms=line.billed_through_ms,
        charge_micro=line.charge.charge_micro,
        fee_micro=line.charge.fee_micro,
        earning_micro=line.charge.earning_micro,
        transfer_id=transfer_id,
    )


def record_to(record: UsageRecord) -> t.UsageRecord:
    return t.UsageRecord(
        number=record.number,
        start_ms=record.start_ms,
        end_ms=record.end_ms,
        gpus=[
            t.GpuUse(
                gpu_uuid=use.gpu_uuid,
                utilization_percent=use.utilization_percent,
                memory_used_bytes=use.memory_used_bytes,
                energy_mj=use.energy_mj,
            )
            for use in record.gpus
        ],
        previous_digest=record.previous_digest,
        digest=record.digest,
    )


def totals_to(totals: LogTotals) -> t.LogTotals:
    return t.LogTotals(
        stdout_bytes=totals.stdout_bytes,
        stderr_bytes=totals.stderr_bytes,
        stdout_sha256=totals.stdout_sha256,
        stderr_sha256=totals.stderr_sha256,
    )


def account_to(account: Account, balances: Balances) -> m.Account:
    return m.Account(
        account_id=account.id,
        name=account.name,
        roles=[t.Role.Value(f"ROLE_{role.name}") for role in sorted(account.roles)],
        wallet_micro=balances.wallet_micro,
        held_micro=balances.held_micro,
        earnings_micro=balances.earnings_micro,
    )


def roles_from(values: Sequence[int]) -> frozenset[Role]:
    """Unknown roles are dropped; the caller refuses an empty set."""
    known = {t.Role.Value(f"ROLE_{role.name}"): role for role in Role}
    return frozenset(role for value, role in known.items() if value in values)


def host_to(host: Host, room: HostRoom, now_ms: int) -> m.Host:
    return m.Host(
        host_id=host.id,
        hostname=host.facts.hostname,
        state=t.HostState.Value(f"HOST_STATE_{host.state.name}"),
        reason=host.reason,
        since_at_ms=host.since_ms,
        offers=[offer_to(shelf, now_ms) for shelf in _shelves(room, now_ms)],
        gpus=[gpu_to(gpu) for gpu in host.facts.gpus],
    )
