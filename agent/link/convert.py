"""Messages to values and back. Nothing else in the agent knows the messages."""

import re
from collections.abc import Iterable, Sequence

from agent.domain.attempt import (
    RUN_MS_MAX_DEFAULT,
    STOP_GRACE_MS_DEFAULT,
    Acknowledgement,
    AttemptKey,
    AttemptReport,
    AttemptState,
    DesiredAttempt,
    EndReason,
    Isolation,
    JobOrder,
    Network,
    OutputChunk,
    OutputStream,
)
from agent.domain.confidential import Confidential, Login
from agent.domain.gpu import GpuInfo
from agent.domain.health import HEALTHY, Condition, GpuHealth
from agent.domain.host import Hello
from agent.domain.use import JobFigures
from runtime.evidence import GpuUse, UsageRecord
from runtime.tracing import KEY, place_in
from usance.v1 import host_pb2, types_pb2

_HEALTH_REASON_BYTES_MAX = 256
_STATES = {
    AttemptState.PREPARING: types_pb2.ATTEMPT_STATE_PREPARING,
    AttemptState.RUNNING: types_pb2.ATTEMPT_STATE_RUNNING,
    AttemptState.STOPPING: types_pb2.ATTEMPT_STATE_STOPPING,
    AttemptState.ENDED: types_pb2.ATTEMPT_STATE_ENDED,
}
_ID = re.compile(r"[a-z0-9_-]{1,64}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECRET = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", re.ASCII)
_REASONS = {reason: types_pb2.EndReason.Value(f"END_REASON_{reason.name}") for reason in EndReason}
_REASONS_BACK: dict[int, EndReason] = {number: reason for reason, number in _REASONS.items()}
_ISOLATIONS = {
    Isolation.PROCESS: types_pb2.ISOLATION_PROCESS,
    Isolation.CONTAINER: types_pb2.ISOLATION_CONTAINER,
}
_NETWORKS = {network: types_pb2.Network.Value(f"NETWORK_{network.name}") for network in Network}
_NETWORKS_BACK: dict[int, Network] = {number: network for network, number in _NETWORKS.items()}
_HEALTHS = {condition: types_pb2.GpuHealth.Value(f"GPU_HEALTH_{condition.name}") for condition in Condition}
_STREAMS = {
    OutputStream.STDOUT: types_pb2.LOG_STREAM_STDOUT,
    OutputStream.STDERR: types_pb2.LOG_STREAM_STDERR,
}


def hello_request(hello: Hello) -> host_pb2.SynchronizeRequest:
    facts, terms = hello.facts, hello.terms
    return host_pb2.SynchronizeRequest(
        hello=host_pb2.Hello(
            agent_version=hello.agent_version,
            boot_id=hello.boot_id,
            instance=hello.instance,
            facts=host_pb2.HostFacts(
                hostname=facts.hostname,
                cpu_count=facts.cpu_count,
                memory_bytes=facts.memory_bytes,
                disk_free_bytes=facts.disk_free_bytes,
                gpus=[_gpu(gpu, facts.gpu_healths.get(gpu.uuid, HEALTHY)) for gpu in facts.gpus],
                isolation=_ISOLATIONS[facts.isolation],
                executor=facts.executor,
                driver_version=facts.driver_version,
                region=facts.region,
                cuda_version=facts.cuda_version,
                labels=facts.labels,
                download_bps=facts.download_bps,
                upload_bps=facts.upload_bps,
            ),
            terms=host_pb2.Terms(
                prices=[
                    host_pb2.GpuPrice(model=model, gpu_hour_price_micro=price)
                    for model, price in sorted(terms.gpu_hour_prices_micro.items())
                ],
                run_ms_max=terms.run_ms_max,
                trusted_accounts=terms.trusted_accounts,
                reclaim_notice_ms=terms.reclaim_notice_ms,
                network_max=_NETWORKS[terms.network_max],
                network_destinations=terms.network_destinations,
                hours=[
                    host_pb2.SaleWindow(start_minute=window.start_minute, end_minute=window.end_minute)
                    for window in terms.hours
                ],
                images_allowed=terms.images_allowed,
                images_denied=terms.images_denied,
            ),
        )
    )


def beat_request(number: int, reports: Iterable[AttemptReport]) -> host_pb2.SynchronizeRequest:
    return host_pb2.SynchronizeRequest(
        beat=host_pb2.Beat(number=number, attempts=[_report(report) for report in reports])
    )


def usage_request(due: Sequence[tuple[AttemptKey, Sequence[UsageRecord]]]) -> host_pb2.SynchronizeRequest:
    """Of one attempt, as every coordinator knows it, or of several."""
    reports = [
        host_pb2.UsageReport(
            attempt_id=key.attempt_id, epoch=key.epoch, records=[_record(record) for record in records]
        )
        for key, records in due
    ]
    if len(reports) == 1:
        return host_pb2.SynchronizeRequest(usage=reports[0])
    return host_pb2.SynchronizeRequest(usages=host_pb2.UsageReports(reports=reports))


def log_request(key: AttemptKey, chunks: Sequence[OutputChunk]) -> host_pb2.SynchronizeRequest:
    return host_pb2.SynchronizeRequest(
        logs=host_pb2.LogReport(
            attempt_id=key.attempt_id,
            epoch=key.epoch,
            chunks=[
                types_pb2.LogChunk(offset=chunk.offset, stream=_STREAMS[chunk.stream], data=chunk.data)
                for chunk in chunks
            ],
        )
    )


class BrokenProtocolError(ValueError):
    """The coordinator has sent what it must not send."""


class DesiredReader:
    """Reads what comes again and again: what is what it was last time, word for word, is not read anew."""

    def __init__(self) -> None:
        self._read: dict[bytes, DesiredAttempt] = {}

    def read(self, message: host_pb2.Desired) -> tuple[DesiredAttempt, ...]:
        before, self._read = self._read, {}
        for attempt in message.attempts:
            words = attempt.SerializeToString()
            self._read[words] = before.get(words) or _desired(attempt)
        return tuple(self._read.values())


def acknowledgement(message: host_pb2.Acknowledged) -> Acknowledgement:
    return Acknowledgement(
        key=AttemptKey(attempt_id=message.attempt_id, epoch=message.epoch),
        usage_number=message.usage_number,
        log_offset=message.log_offset,
    )


def _desired(message: host_pb2.DesiredAttempt) -> DesiredAttempt:
    spec = message.spec
    # It names folders and containers here.
    if not _ID.fullmatch(message.attempt_id) or message.epoch < 1:
        raise BrokenProtocolError(f"attempt {message.attempt_id!r} of epoch {message.epoch} is none")
    if not spec.command:
        raise BrokenProtocolError(f"attempt {message.attempt_id} has no command")
    return DesiredAttempt(
        order=JobOrder(
            key=AttemptKey(attempt_id=message.attempt_id, epoch=message.epoch),
            image=spec.image,
            command=tuple(spec.command),
            env=dict(spec.env),
            gpu_uuids=tuple(message.gpu_uuids),
            isolation_min=(
                Isolation.PROCESS
                if spec.isolation_min == types_pb2.ISOLATION_PROCESS
                else Isolation.CONTAINER
            ),
            stop_grace_ms=spec.stop_grace_ms if spec.HasField("stop_grace_ms") else STOP_GRACE_MS_DEFAULT,
            run_ms_max=spec.run_ms_max or RUN_MS_MAX_DEFAULT,
            memory_bytes=spec.memory_bytes,
            cpu_milli=spec.cpu_milli,
            # What we do not know is no leave to reach anything.
            network=_NETWORKS_BACK.get(spec.network, Network.NONE),
            network_destinations=tuple(spec.network_destinations),
            is_confidential=message.is_confidential,
            request_id=message.request_id if _REQUEST_ID.fullmatch(message.request_id) else "",
            traceparent=place_in([(KEY, message.traceparent)]),
        ),
        paid_through_ms=message.paid_through_ms,
        stop_reason=_stop_reason(message.stop_reason),
        usage_number_acknowledged=message.usage_number_acknowledged,
        log_offset_acknowledged=message.log_offset_acknowledged,
        confidential=_confidential(message.confidential) if message.HasField("confidential") else None,
    )


def _confidential(message: types_pb2.Confidential) -> Confidential:
    for secret in message.secrets:
        # It names a file here.
        if not _SECRET.fullmatch(secret.name):
            raise BrokenProtocolError("a secret has a name that no file may have")
    registry = message.registry
    return Confidential(
        files={secret.name: secret.value for secret in message.secrets},
        login=Login(username=registry.username, password=registry.password)
        if message.HasField("registry")
        else None,
    )


def _stop_reason(number: int) -> EndReason | None:
    if number == types_pb2.END_REASON_UNSPECIFIED:
        return None
    # A reason that a newer coordinator knows and we do not is a reason all the same: the run must end.
    return _REASONS_BACK.get(number, EndReason.CANCELLED)


def _gpu(gpu: GpuInfo, health: GpuHealth) -> types_pb2.Gpu:
    return types_pb2.Gpu(
        uuid=gpu.uuid,
        model=gpu.model,
        vram_bytes=gpu.vram_bytes,
        simulated=gpu.simulated,
        compute_capability=gpu.compute_capability,
        health=_HEALTHS[health.condition],
        health_reason=health.reason.encode()[:_HEALTH_REASON_BYTES_MAX].decode(errors="ignore"),
        board_uuid=gpu.board_uuid,
    )


def _report(report: AttemptReport) -> host_pb2.AttemptReport:
    message = host_pb2.AttemptReport(
        attempt_id=report.key.attempt_id,
        epoch=report.key.epoch,
        state=_STATES[report.state],
        container_id=report.container_id,
        run_ms=report.run_ms,
        detail=report.detail,
    )
    if report.figures is not None:
        message.figures.CopyFrom(_figures(report.figures))
    ending = report.ending
    if ending is not None:
        if ending.exit_code is not None:
            message.exit_code = ending.exit_code
        message.end_reason = _REASONS[ending.reason]
        message.usage_number_last = ending.usage_number_last
        message.log_totals.CopyFrom(
            types_pb2.LogTotals(
                stdout_bytes=ending.totals.stdout_bytes,
                stderr_bytes=ending.totals.stderr_bytes,
                stdout_sha256=ending.totals.stdout_sha256,
                stderr_sha256=ending.totals.stderr_sha256,
            )
        )
    return message


def _figures(figures: JobFigures) -> types_pb2.JobFigures:
    return types_pb2.JobFigures(
        cpu_milli=figures.cpu_milli,
        memory_bytes=figures.memory_bytes,
        gpus=[
            types_pb2.GpuFigures(
                gpu_uuid=sample.uuid,
                utilization_percent=sample.utilization_percent,
                memory_used_bytes=sample.memory_used_bytes,
                power_mw=sample.power_mw,
                temperature_c=sample.temperature_c,
            )
            for sample in figures.gpus
        ],
    )


def _record(record: UsageRecord) -> types_pb2.UsageRecord:
    return types_pb2.UsageRecord(
        number=record.number,
        start_ms=record.start_ms,
        end_ms=record.end_ms,
        gpus=[_use(use) for use in record.gpus],
        previous_digest=record.previous_digest,
        digest=record.digest,
    )


def _use(use: GpuUse) -> types_pb2.GpuUse:
    return types_pb2.GpuUse(
        gpu_uuid=use.gpu_uuid,
        utilization_percent=use.utilization_percent,
        memory_used_bytes=use.memory_used_bytes,
        energy_mj=use.energy_mj,
    )
