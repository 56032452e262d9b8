"""Domain values to rows and back. JSON columns hold what is never searched by."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping

from coordinator.domain.host import Gpu, GpuHealth, HostFacts, Isolation, Network, Terms
from coordinator.domain.hours import SaleWindow
from coordinator.domain.images import ImagePolicy
from coordinator.domain.job import (
    Attempt,
    GpuRequest,
    HostRequest,
    Job,
    JobSpec,
    LogState,
    LogTotals,
    OnHostLoss,
    Origin,
    Policy,
    ReportedEnd,
)
from coordinator.domain.metering import Line, Meter, Stamp
from coordinator.domain.pricing import Charge
from coordinator.domain.states import AttemptState, Cause, EndReason, JobState
from runtime.evidence import GpuUse, UsageRecord

Json = dict[str, Any]
Row = RowMapping

# To ask the enumeration itself costs more than the rest of a GPU.
_HEALTHS = {str(health): health for health in GpuHealth}


def spec_to_json(spec: JobSpec) -> Json:
    return {
        "name": spec.name,
        "image": spec.image,
        "command": list(spec.command),
        "env": dict(spec.env),
        "gpu_count": spec.gpus.count,
        "gpu_model": spec.gpus.model,
        "vram_bytes_min": spec.gpus.vram_bytes_min,
        "isolation_min": int(spec.isolation_min),
        "gpu_hour_price_micro_max": spec.gpu_hour_price_micro_max,
        "budget_micro": spec.budget_micro,
        "run_ms_max": spec.run_ms_max,
        "stop_grace_ms": spec.stop_grace_ms,
        "retries_max": spec.retries_max,
        "queue_ms_max": spec.queue_ms_max,
        "memory_bytes": spec.memory_bytes,
        "cpu_milli": spec.cpu_milli,
        "compute_capability_min": spec.gpus.compute_capability_min,
        "simulated": spec.gpus.simulated,
        "host": {**vars(spec.host), "regions": list(spec.host.regions), "labels": dict(spec.host.labels)},
        "policy": str(spec.policy),
        "priority": spec.priority,
        "on_host_loss": str(spec.on_host_loss),
        "labels": dict(spec.labels),
        "note": spec.note,
        "network": int(spec.network),
        "network_destinations": list(spec.network_destinations),
        "secret_names": list(spec.secret_names),
        "has_registry_credential": spec.has_registry_credential,
    }


_READ_APART = frozenset(
    {"gpu_count", "gpu_model", "vram_bytes_min", "compute_capability_min", "command", "isolation_min"}
    | {"host", "policy", "on_host_loss", "network", "network_destinations", "simulated", "secret_names"}
)


def spec_from_json(data: Json) -> JobSpec:
    plain = {key: value for key, value in data.items() if key not in _READ_APART}
    return JobSpec(
        command=tuple(data["command"]),
        gpus=GpuRequest(
            count=data["gpu_count"],
            model=data["gpu_model"],
            vram_bytes_min=data["vram_bytes_min"],
            compute_capability_min=data["compute_capability_min"],
            simulated=data.get("simulated", False),
        ),
        host=HostRequest(**{**data["host"], "regions": tuple(data["host"]["regions"])}),
        isolation_min=Isolation(data["isolation_min"]),
        policy=Policy(data["policy"]),
        on_host_loss=OnHostLoss(data["on_host_loss"]),
        # Orders of before have none.
        network=Network(data.get("network", Network.NONE)),
        network_destinations=tuple(data.get("network_destinations", ())),
        secret_names=tuple(data.get("secret_names", ())),
        **plain,
    )


def gpus_to_json(gpus: Sequence[Gpu]) -> list[Json]:
    return [vars(gpu) for gpu in gpus]


def gpus_from_json(data: Sequence[Json]) -> tuple[Gpu, ...]:
    return tuple(_gpu(item) for item in data)


def _gpu(item: Json) -> Gpu:
    # What was written before there was a health says nothing of it.
    return Gpu(**{**item, "health": _HEALTHS[item.get("health", GpuHealth.HEALTHY)]})


def facts_to_json(facts: HostFacts) -> Json:
    return {
        **vars(facts),
        "gpus": gpus_to_json(facts.gpus),
        "isolation": int(facts.isolation),
        "labels": dict(facts.labels),
    }


def facts_from_json(data: Json) -> HostFacts:
    return HostFacts(
        **{**data, "gpus": gpus_from_json(data["gpus"]), "isolation": Isolation(data["isolation"])}
    )


def terms_to_json(terms: Terms) -> Json:
    return {
        **vars(terms),
        "trusted_accounts": sorted(terms.trusted_accounts),
        "network_max": int(terms.network_max),
        "network_destinations": list(terms.network_destinations),
        "hours": [[window.start_minute, window.end_minute] for window in terms.hours],
        "images": [list(terms.images.allowed), list(terms.images.denied)],
    }


def terms_from_json(data: Json) -> Terms:
    # Terms of before say less.
    allowed, denied = data.get("images", ((), ()))
    return Terms(
        **{
            **data,
            "trusted_accounts": frozenset(data["trusted_accounts"]),
            "network_max": Network(data.get("network_max", Network.NONE)),
            "network_destinations": tuple(data.get("network_destinations", ())),
            "hours": tuple(
                SaleWindow(start_minute=start, end_minute=end) for start, end in data.get("hours", ())
            ),
            "images": ImagePolicy(allowed=tuple(allowed), denied=tuple(denied)),
        }
    )


def job_from_row(row: Row) -> Job:
    return Job(
        id=row["id"],
        account_id=row["account_id"],
        account_name=row["account_name"],
        spec=spec_from_json(row["spec"]),
        state=JobState(row["state"]),
        cause=None if row["cause"] is None else Cause(row["cause"]),
        detail=row["detail"],
        submitted_ms=row["submitted_ms"],
        queued_ms=row["queued_ms"],
        ended_ms=row["ended_ms"] or 0,
        charged_micro=row["charged_micro"],
        retries_used=row["retries_used"],
        exit_code=row["exit_code"],
        origin=Origin(request_id=row["request_id"] or "", traceparent=row["traceparent"] or ""),
    )


def order_changes(job: Job) -> Json:
    """The columns of a job that only `extend` changes."""
    return {"spec": spec_to_json(job.spec), "budget_micro": job.spec.budget_micro}


def job_changes(job: Job) -> Json:
    """The other columns of a job that may change."""
    return {
        "state": str(job.state),
        "cause": _text(job.cause),
        "detail": job.detail,
        "queued_ms": job.queued_ms,
        "ended_ms": job.ended_ms or None,
        "charged_micro": job.charged_micro,
        "retries_used": job.retries_used,
        "exit_code": job.exit_code,
    }


def attempt_from_row(row: Row) -> Attempt:
    gpus = gpus_from_json(row["gpus"])
    return Attempt(
        id=row["id"],
        job_id=row["job_id"],
        epoch=row["epoch"],
        host_id=row["host_id"],
        seller_account_id=row["seller_account_id"],
        isolation=Isolation(row["isolation"]),
        gpus=gpus,
        state=AttemptState(row["state"]),
        meter=_meter(row, gpus),
        paid_through_ms=row["paid_through_ms"],
        warned=row["warned"],
        run_ms_reported=row["run_ms_reported"],
        stop_reason=_reason(row["stop_reason"]),
        reported_end=_reported_end(row["reported_end"]),
        end_reason=_reason(row["end_reason"]),
        cause=None if row["cause"] is None else Cause(row["cause"]),
        exit_code=row["exit_code"],
        detail=row["detail"],
        lie=row["lie"],
        log_offset=row["log_offset"],
        log_totals=_totals(row["log_totals"]),
        log_state=LogState(row["log_state"]),
    )


def attempt_changes(attempt: Attempt) -> Json:
    """The columns of an attempt that may change."""
    meter, end, totals = attempt.meter, attempt.reported_end, attempt.log_totals
    return {
        "state": str(attempt.state),
        "paid_through_ms": attempt.paid_through_ms,
        "warned": attempt.warned,
        "run_ms_reported": attempt.run_ms_reported,
        "stop_reason": _text(attempt.stop_reason),
        "reported_end": None if end is None else {**vars(end), "reason": str(end.reason), "at": vars(end.at)},
        "end_reason": _text(attempt.end_reason),
        "cause": _text(attempt.cause),
        "exit_code": attempt.exit_code,
        "detail": attempt.detail,
        "lie": attempt.lie,
        "log_offset": attempt.log_offset,
        "log_totals": None
        if totals is None
        else {
            "stdout_bytes": totals.stdout_bytes,
            "stderr_bytes": totals.stderr_bytes,
            "stdout_sha256": totals.stdout_sha256.hex(),
            "stderr_sha256": totals.stderr_sha256.hex(),
        },
        "log_state": str(attempt.log_state),
        "container_id": meter.container_id,
        "host_boot_id": meter.host_boot_id,
        "sighted": None if meter.sighted is None else vars(meter.sighted),
        "stop_asked": None if meter.stop_asked is None else vars(meter.stop_asked),
        "witnessed_ms": meter.witnessed_ms,
        "usage_number": meter.usage_number,
        "usage_end_ms": meter.usage_end_ms,
        "usage_digest": meter.usage_digest,
        "billed_ms": meter.billed_ms,
        "run_ms_affordable": meter.run_ms_affordable,
        "run_ms_max": meter.run_ms_max,
    }


def attempt_guard(attempt: Attempt) -> Json:
    """What an attempt that was read must still be when it is saved."""
    return {
        "epoch": attempt.epoch,
        "state": str(attempt.state),
        "usage_number": attempt.meter.usage_number,
        "log_offset": attempt.log_offset,
    }


def is_unreleased(attempt: Attempt) -> bool:
    """The host must still be told of it."""
    return attempt.state is not AttemptState.ENDED or attempt.log_state is LogState.OPEN


def meter_changes(attempt: Attempt) -> Json:
    """Of the columns that may change, those which do while a job runs."""
    meter = attempt.meter
    return {
        "paid_through_ms": attempt.paid_through_ms,
        "run_ms_reported": attempt.run_ms_reported,
        "sighted": None if meter.sighted is None else vars(meter.sighted),
        "witnessed_ms": meter.witnessed_ms,
        "usage_number": meter.usage_number,
        "usage_end_ms": meter.usage_end_ms,
        "usage_digest": meter.usage_digest,
        "billed_ms": meter.billed_ms,
    }


def attempt_facts(attempt: Attempt) -> Json:
    """The columns of an attempt that never change."""
    meter = attempt.meter
    return {
        "id": attempt.id,
        "job_id": attempt.job_id,
        "epoch": attempt.epoch,
        "host_id": attempt.host_id,
        "seller_account_id": attempt.seller_account_id,
        "isolation": int(attempt.isolation),
        "gpus": gpus_to_json(attempt.gpus),
        "hour_price_micro": meter.hour_price_micro,
        "fee_ppm": meter.fee_ppm,
        "assigned": vars(meter.assigned),
    }


def line_to_row(attempt_id: str, line: Line, transfer_id: str) -> Json:
    record = line.record
    return {
        "attempt_id": attempt_id,
        "number": record.number,
        "start_ms": record.start_ms,
        "end_ms": record.end_ms,
        "gpus": [vars(use) for use in record.gpus],
        "previous_digest": record.previous_digest,
        "digest": record.digest,
        "witnessed_ms": line.witnessed_ms,
        "billed_through_ms": line.billed_through_ms,
        "charge_micro": line.charge.charge_micro,
        "fee_micro": line.charge.fee_micro,
        "earning_micro": line.charge.earning_micro,
        "transfer_id": transfer_id,
    }


def line_from_row(row: Row) -> tuple[Line, str]:
    record = UsageRecord(
        number=row["number"],
        start_ms=row["start_ms"],
        end_ms=row["end_ms"],
        gpus=tuple(GpuUse(**use) for use in row["gpus"]),
        previous_digest=bytes(row["previous_digest"]),
        digest=bytes(row["digest"]),
    )
    charge = Charge(
        charge_micro=row["charge_micro"], fee_micro=row["fee_micro"], earning_micro=row["earning_micro"]
    )
    line = Line(
        record=record,
        witnessed_ms=row["witnessed_ms"],
        billed_through_ms=row["billed_through_ms"],
        charge=charge,
    )
    return line, row["transfer_id"]


def _meter(row: Row, gpus: tuple[Gpu, ...]) -> Meter:
    return Meter(
        attempt_id=row["id"],
        epoch=row["epoch"],
        hour_price_micro=row["hour_price_micro"],
        fee_ppm=row["fee_ppm"],
        run_ms_affordable=row["run_ms_affordable"],
        run_ms_max=row["run_ms_max"],
        gpu_uuids=frozenset(gpu.uuid for gpu in gpus),
        vram_bytes_max=max((gpu.vram_bytes for gpu in gpus), default=0),
        assigned=Stamp(**row["assigned"]),
        container_id=row["container_id"],
        host_boot_id=row["host_boot_id"],
        sighted=_stamp(row["sighted"]),
        stop_asked=_stamp(row["stop_asked"]),
        witnessed_ms=row["witnessed_ms"],
        usage_number=row["usage_number"],
        usage_end_ms=row["usage_end_ms"],
        usage_digest=bytes(row["usage_digest"]),
        billed_ms=row["billed_ms"],
    )


def _stamp(data: Json | None) -> Stamp | None:
    return None if data is None else Stamp(**data)


def _reason(text: str | None) -> EndReason | None:
    return None if text is None else EndReason(text)


def _reported_end(data: Json | None) -> ReportedEnd | None:
    if data is None:
        return None
    return ReportedEnd(**{**data, "reason": EndReason(data["reason"]), "at": Stamp(**data["at"])})


def _totals(data: Json | None) -> LogTotals | None:
    if data is None:
        return None
    return LogTotals(
        stdout_bytes=data["stdout_bytes"],
        stderr_bytes=data["stderr_bytes"],
        stdout_sha256=bytes.fromhex(data["stdout_sha256"]),
        stderr_sha256=bytes.fromhex(data["stderr_sha256"]),
    )


def _text(value: Cause | EndReason | None) -> str | None:
    return None if value is None else str(value)
