"""Messages of `host.proto` to domain values and back."""

import re
from collections.abc import Sequence

from coordinator.api.convert_market import end_reason_to, spec_to
from coordinator.api.validate import destinations, labels, line, name, network, whole
from coordinator.domain.host import Gpu, GpuHealth, Hold, Host, HostFacts, Isolation, Terms
from coordinator.domain.hours import WEEK_MINUTES, SaleWindow
from coordinator.domain.images import ImagePolicy
from coordinator.domain.job import Attempt, LogChunk, LogTotals
from coordinator.domain.metering import INT64_MAX
from coordinator.domain.refusal import invalid
from coordinator.domain.states import AttemptState, EndReason
from coordinator.services.desired import Wanted
from coordinator.services.synchronize import Ack, Report
from runtime.evidence import GpuUse, UsageRecord
from usance.v1 import host_pb2 as h
from usance.v1 import types_pb2 as t

_PATTERN = re.compile(r"[A-Za-z0-9._:/@*-]{1,255}", re.ASCII)
_REGION = re.compile(r"[a-z0-9-]{0,64}")
GPUS_MAX, PRICES_MAX, TRUSTED_MAX, ATTEMPTS_MAX, RECORDS_MAX, CHUNKS_MAX = 64, 64, 256, 256, 256, 64
WINDOWS_MAX, PATTERNS_MAX = 64, 32
CHUNK_BYTES_MAX = 65_536

_HEALTHS: dict[int, GpuHealth] = {
    t.GPU_HEALTH_UNSPECIFIED: GpuHealth.HEALTHY,
    t.GPU_HEALTH_HEALTHY: GpuHealth.HEALTHY,
    t.GPU_HEALTH_DEGRADED: GpuHealth.DEGRADED,
    t.GPU_HEALTH_LOST: GpuHealth.LOST,
}
_STATES = {
    t.ATTEMPT_STATE_PREPARING: AttemptState.PREPARING,
    t.ATTEMPT_STATE_RUNNING: AttemptState.RUNNING,
    t.ATTEMPT_STATE_STOPPING: AttemptState.STOPPING,
    t.ATTEMPT_STATE_ENDED: AttemptState.ENDED,
}

_WISHES = {
    h.SELLER_WISH_SELL: Hold.NONE,
    h.SELLER_WISH_PAUSE: Hold.PAUSED,
    h.SELLER_WISH_RECLAIM: Hold.DRAINING,
}


def wish(value: h.SellerWish.ValueType) -> Hold:
    found = _WISHES.get(value)
    if found is None:
        raise invalid("wish", "SELL, PAUSE or RECLAIM")
    return found


def host_state_to(host: Host) -> t.HostState.ValueType:
    return t.HostState.Value(f"HOST_STATE_{host.state.name}")


def facts(message: h.HostFacts) -> HostFacts:
    few("facts.gpus", len(message.gpus), GPUS_MAX)
    gpus = tuple(_gpu(gpu) for gpu in message.gpus)
    if len({gpu.uuid for gpu in gpus}) != len(gpus):
        raise invalid("facts.gpus", "each GPU once")
    if message.isolation not in {t.ISOLATION_PROCESS, t.ISOLATION_CONTAINER}:
        raise invalid("facts.isolation", "ISOLATION_PROCESS or ISOLATION_CONTAINER")
    return HostFacts(
        hostname=line("facts.hostname", message.hostname, 256),
        cpu_count=whole("facts.cpu_count", message.cpu_count, 1, 4096),
        memory_bytes=whole("facts.memory_bytes", message.memory_bytes, 0, INT64_MAX),
        disk_free_bytes=whole("facts.disk_free_bytes", message.disk_free_bytes, 0, INT64_MAX),
        isolation=Isolation(message.isolation),
        executor=line("facts.executor", message.executor, 256),
        gpus=gpus,
        driver_version=line("facts.driver_version", message.driver_version, 64),
        region=_region(message.region),
        cuda_version=line("facts.cuda_version", message.cuda_version, 32),
        labels=labels("facts.labels", message.labels),
        download_bps=_bps("facts.download_bps", message.download_bps)
        if message.HasField("download_bps")
        else None,
        upload_bps=_bps("facts.upload_bps", message.upload_bps) if message.HasField("upload_bps") else None,
        network_measured=message.network_measured,
    )


def _bps(field: str, value: int) -> int:
    return whole(field, value, 0, INT64_MAX)


def _region(text: str) -> str:
    if not _REGION.fullmatch(text):
        raise invalid("facts.region", "at most 64 of a-z, 0-9 and dashes, or nothing")
    return text


def _gpu(message: t.Gpu) -> Gpu:
    return Gpu(
        uuid=line("facts.gpus.uuid", message.uuid, 128, empty=False),
        model=line("facts.gpus.model", message.model, 128, empty=False),
        vram_bytes=whole("facts.gpus.vram_bytes", message.vram_bytes, 1, INT64_MAX),
        simulated=message.simulated,
        compute_capability=line("facts.gpus.compute_capability", message.compute_capability, 16),
        # One that a newer agent knows and we do not is no good news.
        health=_HEALTHS.get(message.health, GpuHealth.DEGRADED),
        health_reason=line("facts.gpus.health_reason", message.health_reason, 256),
        board_uuid=line("facts.gpus.board_uuid", message.board_uuid, 128),
    )


def terms(message: h.Terms) -> Terms:
    few("terms.prices", len(message.prices), PRICES_MAX)
    few("terms.trusted_accounts", len(message.trusted_accounts), TRUSTED_MAX)
    most = network("terms.network_max", message.network_max)
    return Terms(
        prices={
            line("terms.prices.model", price.model, 128, empty=False): whole(
                "terms.prices.gpu_hour_price_micro", price.gpu_hour_price_micro, 1, 10**12
            )
            for price in message.prices
        },
        run_ms_max=whole("terms.run_ms_max", message.run_ms_max, 0, INT64_MAX),
        reclaim_notice_ms=whole("terms.reclaim_notice_ms", message.reclaim_notice_ms, 0, 86_400_000),
        trusted_accounts=frozenset(
            line("terms.trusted_accounts", account, 64) for account in message.trusted_accounts
        ),
        network_max=most,
        network_destinations=destinations("terms.network_destinations", message.network_destinations, most),
        hours=_hours(message.hours),
        images=ImagePolicy(
            allowed=_patterns("terms.images_allowed", message.images_allowed),
            denied=_patterns("terms.images_denied", message.images_denied),
        ),
    )


def _hours(windows: Sequence[h.SaleWindow]) -> tuple[SaleWindow, ...]:
    few("terms.hours", len(windows), WINDOWS_MAX)
    return tuple(
        SaleWindow(
            start_minute=whole("terms.hours.start_minute", window.start_minute, 0, WEEK_MINUTES - 1),
            end_minute=whole("terms.hours.end_minute", window.end_minute, 0, WEEK_MINUTES),
        )
        for window in windows
    )


def _patterns(field: str, patterns: Sequence[str]) -> tuple[str, ...]:
    few(field, len(patterns), PATTERNS_MAX)
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise invalid(field, "1 to 255 of what an image reference is made of, and *")
    return tuple(patterns)


def reports(message: h.Beat) -> list[Report]:
    few("beat.attempts", len(message.attempts), ATTEMPTS_MAX)
    if len({(one.attempt_id, one.epoch) for one in message.attempts}) != len(message.attempts):
        raise invalid("beat.attempts", "each attempt once")
    return [_report(attempt) for attempt in message.attempts]


def _report(message: h.AttemptReport) -> Report:
    state = _STATES.get(message.state)
    if state is None:
        raise invalid("beat.attempts.state", "PREPARING, RUNNING, STOPPING or ENDED")
    return Report(
        attempt_id=name("beat.attempts.attempt_id", message.attempt_id),
        epoch=message.epoch,
        state=state,
        container_id=line("beat.attempts.container_id", message.container_id, 128),
        run_ms=whole("beat.attempts.run_ms", message.run_ms, 0, INT64_MAX),
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        end_reason=end_reason(message.end_reason),
        detail=line("beat.attempts.detail", message.detail, 1_024),
        usage_number_last=whole("beat.attempts.usage_number_last", message.usage_number_last, 0, INT64_MAX),
        log_totals=_totals(message.log_totals) if message.HasField("log_totals") else None,
    )


def end_reason(value: int) -> EndReason | None:
    """A reason that a newer agent knows and we do not is none."""
    if value in t.EndReason.values() and value != t.END_REASON_UNSPECIFIED:
        return EndReason(t.EndReason.Name(t.EndReason.ValueType(value)).removeprefix("END_REASON_").lower())
    return None


def _totals(message: t.LogTotals) -> LogTotals:
    for field, digest in (("stdout", message.stdout_sha256), ("stderr", message.stderr_sha256)):
        if len(digest) != 32:
            raise invalid(f"beat.attempts.log_totals.{field}_sha256", "32 bytes")
    return LogTotals(
        stdout_bytes=whole("log_totals.stdout_bytes", message.stdout_bytes, 0, INT64_MAX // 2),
        stderr_bytes=whole("log_totals.stderr_bytes", message.stderr_bytes, 0, INT64_MAX // 2),
        stdout_sha256=message.stdout_sha256,
        stderr_sha256=message.stderr_sha256,
    )


def usages(message: h.SynchronizeRequest) -> list[h.UsageReport]:
    """Of one attempt or of several."""
    if message.WhichOneof("message") == "usage":
        found = [message.usage]
    else:
        found = list(message.usages.reports)
        few("usages.reports", len(found), ATTEMPTS_MAX)
        if len({(report.attempt_id, report.epoch) for report in found}) != len(found):
            raise invalid("usages.reports", "each attempt and epoch once")
        few("usages.reports.records", sum(len(report.records) for report in found), RECORDS_MAX)
    return found


def records(message: h.UsageReport) -> list[UsageRecord]:
    few("usage.records", len(message.records), RECORDS_MAX)
    return [record(item) for item in message.records]


def record(message: t.UsageRecord) -> UsageRecord:
    few("usage.records.gpus", len(message.gpus), GPUS_MAX)
    return UsageRecord(
        number=message.number,
        start_ms=message.start_ms,
        end_ms=message.end_ms,
        gpus=tuple([_use(use) for use in message.gpus]),
        previous_digest=message.previous_digest,
        digest=message.digest,
    )


def _use(message: t.GpuUse) -> GpuUse:
    return GpuUse(
        gpu_uuid=line("usage.records.gpus.gpu_uuid", message.gpu_uuid, 128),
        utilization_percent=message.utilization_percent if message.HasField("utilization_percent") else None,
        memory_used_bytes=message.memory_used_bytes if message.HasField("memory_used_bytes") else None,
        energy_mj=message.energy_mj if message.HasField("energy_mj") else None,
    )


def chunks(message: h.LogReport) -> list[LogChunk]:
    few("logs.chunks", len(message.chunks), CHUNKS_MAX)
    return [_chunk(chunk) for chunk in message.chunks]


def _chunk(message: t.LogChunk) -> LogChunk:
    if message.stream not in {t.LOG_STREAM_STDOUT, t.LOG_STREAM_STDERR}:
        raise invalid("logs.chunks.stream", "LOG_STREAM_STDOUT or LOG_STREAM_STDERR")
    whole("logs.chunks.data", len(message.data), 1, CHUNK_BYTES_MAX)
    return LogChunk(
        offset=whole("logs.chunks.offset", message.offset, 0, INT64_MAX // 2),
        stream=message.stream,
        data=message.data,
    )


def wanted_to(wanted: Wanted) -> h.DesiredAttempt:
    attempt = wanted.attempt
    return h.DesiredAttempt(
        attempt_id=attempt.id,
        epoch=attempt.epoch,
        spec=spec_to(wanted.spec),
        gpu_uuids=[gpu.uuid for gpu in attempt.gpus],
        paid_through_ms=attempt.paid_through_ms,
        stop_reason=end_reason_to(attempt.stop_reason),
        usage_number_acknowledged=attempt.meter.usage_number,
        log_offset_acknowledged=attempt.log_offset,
        is_confidential=wanted.spec.is_confidential,
        request_id=wanted.origin.request_id,
        traceparent=wanted.origin.traceparent,
    )


def ack_to(ack: Ack) -> h.Acknowledged:
    return h.Acknowledged(
        attempt_id=ack.attempt_id,
        epoch=ack.epoch,
        usage_number=ack.usage_number,
        log_offset=ack.log_offset,
    )


def renew(said: h.DesiredAttempt, attempt: Attempt) -> None:
    """Of what was said of an attempt, what goes on with time. What a start needs is not said again."""
    said.ClearField("confidential")
    said.paid_through_ms = attempt.paid_through_ms
    said.stop_reason = end_reason_to(attempt.stop_reason)
    said.usage_number_acknowledged = attempt.meter.usage_number
    said.log_offset_acknowledged = attempt.log_offset


def few(field: str, count: int, most: int) -> None:
    if count > most:
        raise invalid(field, f"at most {most} items, not {count}")
