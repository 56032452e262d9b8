"""A coordinator of one host, for tests of the agent: real gRPC over real TLS, but no store.

It keeps to the protocol and checks that the agent does: numbers without gaps, chained digests, output without
holes, limits of size. What it finds wrong stands in `faults`.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio

from runtime.channel import SERVER_NAME, SERVER_OPTIONS
from tests.support.pki import Authority
from usance.v1 import host_pb2, host_pb2_grpc, types_pb2

HOST_ID = "host_test"
SECRET = "usance_secret_of_a_test"


@dataclass
class Taken:
    """What the coordinator has of one attempt under one epoch."""

    epoch: int = 1
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    offset: int = 0
    records: list[types_pb2.UsageRecord] = field(default_factory=list)
    reports: list[host_pb2.AttemptReport] = field(default_factory=list)

    @property
    def last(self) -> host_pb2.AttemptReport:
        return self.reports[-1] if self.reports else host_pb2.AttemptReport()

    @property
    def ended(self) -> bool:
        return self.last.state == types_pb2.ATTEMPT_STATE_ENDED

    @property
    def complete(self) -> bool:
        """Ended, with all its usage and output here."""
        last, totals = self.last, self.last.log_totals
        return (
            self.ended
            and len(self.records) == last.usage_number_last
            and (len(self.stdout), len(self.stderr)) == (totals.stdout_bytes, totals.stderr_bytes)
        )


class FakeCoordinator(host_pb2_grpc.EnrolmentServiceServicer, host_pb2_grpc.HostServiceServicer):
    """`desired` is what it asks for; change it through `want` and `drop`."""

    def __init__(self) -> None:
        self.authority = Authority()
        self.beat_interval_ms = 500
        # 0: a coordinator of before there was such a thing.
        self.usage_reports_max = 256
        self.desired: dict[str, host_pb2.DesiredAttempt] = {}
        self.taken: dict[str, Taken] = {}
        self.hellos: list[host_pb2.Hello] = []
        self.beats: list[host_pb2.Beat] = []
        self.usages: list[host_pb2.UsageReports] = []
        self.faults: list[str] = []
        self.renewals = 0
        # As one of before certificates were renewed.
        self.is_old = False
        self.renewed_until_ms = 0
        self.acknowledging = True
        self.answering = True
        self.standing = host_pb2.GetStandingResponse(state=types_pb2.HOST_STATE_ONLINE)
        self.standings_asked: list[host_pb2.GetStandingRequest] = []
        self.wishes: list[host_pb2.SellerWish.ValueType] = []
        # Streams that said hello, in order, and those that are open.
        self.streams_open = 0
        self.market_port = 0
        self.hosts_port = 0
        self._change = asyncio.Condition()
        self._streams: dict[int, asyncio.Queue[host_pb2.SynchronizeResponse | None]] = {}
        self._stream_number = 0
        self._market: grpc.aio.Server | None = None
        self._hosts: grpc.aio.Server | None = None

    async def start(self) -> None:
        pair = self.authority.server(SERVER_NAME)
        root = self.authority.pair.certificate_pem
        chain = [(pair.key_pem, pair.certificate_pem)]
        self._market = grpc.aio.server(options=SERVER_OPTIONS)
        host_pb2_grpc.add_EnrolmentServiceServicer_to_server(self, self._market)
        self.market_port = self._market.add_secure_port(
            f"127.0.0.1:{self.market_port}", grpc.ssl_server_credentials(chain)
        )
        self._hosts = grpc.aio.server(options=SERVER_OPTIONS)
        host_pb2_grpc.add_HostServiceServicer_to_server(self, self._hosts)
        self.hosts_port = self._hosts.add_secure_port(
            f"127.0.0.1:{self.hosts_port}",
            grpc.ssl_server_credentials(chain, root, require_client_auth=True),
        )
        await self._market.start()
        await self._hosts.start()

    async def stop(self) -> None:
        """As if killed: streams break. It may be started again, on the same ports."""
        for server in (self._market, self._hosts):
            if server is not None:
                await server.stop(0)

    @property
    def token(self) -> str:
        fields = {
            "market": f"127.0.0.1:{self.market_port}",
            "hosts": f"127.0.0.1:{self.hosts_port}",
            "authority": self.authority.pair.certificate_pem.decode(),
            "secret": SECRET,
        }
        return "usance_enroll_" + base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")

    def want(self, attempt: host_pb2.DesiredAttempt) -> Taken:
        self.desired[attempt.attempt_id] = attempt
        taken = self.taken.get(attempt.attempt_id)
        if taken is None or taken.epoch < attempt.epoch:
            taken = self.taken[attempt.attempt_id] = Taken(epoch=attempt.epoch)
        self._send_desired()
        return taken

    def drop(self, attempt_id: str) -> None:
        del self.desired[attempt_id]
        self._send_desired()

    def cut(self) -> None:
        """End every stream, as a broken network would."""
        for queue in self._streams.values():
            queue.put_nowait(None)

    def drain(self, spread_ms: int) -> None:
        self._to_all(host_pb2.SynchronizeResponse(drain=host_pb2.Drain(spread_ms=spread_ms)))

    async def until(self, condition: Callable[[], bool], what: str, *, deadline_s: float = 20) -> None:
        try:
            async with asyncio.timeout(deadline_s), self._change:
                await self._change.wait_for(condition)
        except TimeoutError:
            states = {key: str(taken.last) for key, taken in self.taken.items()}
            raise AssertionError(f"waited {deadline_s} s in vain: {what}; {states}; {self.faults}") from None

    async def Enroll(self, request, context):  # noqa: N802
        if request.token_secret != SECRET:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "the token is unknown")
        return host_pb2.EnrollResponse(
            host_id=HOST_ID,
            certificate_pem=self.authority.sign(request.csr_pem, HOST_ID),
            authority_pem=self.authority.pair.certificate_pem,
        )

    async def RenewCertificate(self, request, context):  # noqa: N802
        self.renewals += 1
        if self.is_old:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        return host_pb2.RenewCertificateResponse(
            certificate_pem=self.authority.sign(request.csr_pem, HOST_ID),
            authority_pem=self.authority.pair.certificate_pem,
            expires_at_ms=self.renewed_until_ms,
        )

    async def Synchronize(self, request_iterator, context):  # noqa: N802
        self._stream_number += 1
        number = self._stream_number
        queue: asyncio.Queue[host_pb2.SynchronizeResponse | None] = asyncio.Queue()
        reader = asyncio.create_task(self._read(request_iterator, queue))
        try:
            yield host_pb2.SynchronizeResponse(
                welcome=host_pb2.Welcome(
                    host_id=HOST_ID,
                    beat_interval_ms=self.beat_interval_ms,
                    reconnect_window_ms=60_000,
                    usage_reports_max=self.usage_reports_max,
                )
            )
            self._streams[number] = queue
            self.streams_open += 1
            yield self._desired_message()
            while (message := await queue.get()) is not None:
                yield message
        finally:
            if self._streams.pop(number, None) is not None:
                self.streams_open -= 1
            reader.cancel()
            async with self._change:
                self._change.notify_all()

    async def GetStanding(self, request, context):  # noqa: N802
        self.standings_asked.append(request)
        return self.standing

    async def SetHold(self, request, context):  # noqa: N802
        self.wishes.append(request.wish)
        states = {
            host_pb2.SELLER_WISH_SELL: types_pb2.HOST_STATE_ONLINE,
            host_pb2.SELLER_WISH_PAUSE: types_pb2.HOST_STATE_PAUSED,
            host_pb2.SELLER_WISH_RECLAIM: types_pb2.HOST_STATE_DRAINING,
        }
        self.standing.state = states[request.wish]
        return host_pb2.SetHoldResponse(state=self.standing.state, reason="a wish")

    async def _read(self, requests, queue) -> None:
        began = False
        try:
            async for request in requests:
                kind = request.WhichOneof("message")
                if not began and kind != "hello":
                    self.faults.append(f"the first message is {kind}")
                began = True
                for answer in self._take(request):
                    if self.answering:
                        queue.put_nowait(answer)
                async with self._change:
                    self._change.notify_all()
        finally:
            queue.put_nowait(None)

    def _take(self, request: host_pb2.SynchronizeRequest) -> list[host_pb2.SynchronizeResponse]:
        if request.ByteSize() > 1 << 20:
            self.faults.append(f"a message of {request.ByteSize()} bytes")
        match request.WhichOneof("message"):
            case "hello":
                self.hellos.append(request.hello)
                return []
            case "beat":
                self.beats.append(request.beat)
                for report in request.beat.attempts:
                    taken = self._taken(report.attempt_id, report.epoch)
                    if taken is not None:
                        taken.reports.append(report)
                return [self._desired_message()]
            case "usage":
                return [
                    host_pb2.SynchronizeResponse(acknowledged=one)
                    for one in self._take_usages([request.usage])
                ]
            case "usages":
                self.usages.append(request.usages)
                if len(request.usages.reports) > self.usage_reports_max:
                    self.faults.append(f"usage of {len(request.usages.reports)} attempts in one message")
                acks = self._take_usages(request.usages.reports)
                many = host_pb2.AcknowledgedMany(acknowledged=acks)
                return [host_pb2.SynchronizeResponse(acknowledged_many=many)] if acks else []
            case "logs":
                taken = self._taken(request.logs.attempt_id, request.logs.epoch)
                acks = self._take_logs(request.logs, taken) if taken else []
                return [host_pb2.SynchronizeResponse(acknowledged=one) for one in acks]
            case _:
                self.faults.append("an empty message")
                return []

    def _taken(self, attempt_id: str, epoch: int) -> Taken | None:
        """None where the agent speaks for an epoch that is not the newest."""
        taken = self.taken.setdefault(attempt_id, Taken(epoch=epoch))
        return taken if taken.epoch == epoch else None

    def _take_usages(self, reports: Sequence[host_pb2.UsageReport]) -> list[host_pb2.Acknowledged]:
        if sum(len(report.records) for report in reports) > 256:
            self.faults.append("too many usage records in one message")
        acks: list[host_pb2.Acknowledged] = []
        for report in reports:
            taken = self._taken(report.attempt_id, report.epoch)
            if taken is not None:
                acks += self._take_usage(report, taken)
        return acks

    def _take_usage(self, usage: host_pb2.UsageReport, taken: Taken) -> list[host_pb2.Acknowledged]:
        for record in usage.records:
            if record.number <= len(taken.records):
                if taken.records[record.number - 1] != record:
                    self.faults.append(f"record {record.number} came again with other content")
                continue
            before = taken.records[-1] if taken.records else None
            start = hashlib.sha256(f"usance.usage.v1\n{usage.attempt_id}\n{usage.epoch}".encode()).digest()
            if (
                record.number != len(taken.records) + 1
                or record.start_ms != (before.end_ms if before else 0)
                or record.previous_digest != (before.digest if before else start)
            ):
                self.faults.append(f"record {record.number} does not follow the one before")
            if not 0 < record.end_ms - record.start_ms <= 60_000:
                self.faults.append(f"record {record.number} has {record.end_ms - record.start_ms} ms")
            taken.records.append(record)
        return self._acknowledged(usage.attempt_id, taken)

    def _take_logs(self, logs: host_pb2.LogReport, taken: Taken) -> list[host_pb2.Acknowledged]:
        if not 1 <= len(logs.chunks) <= 64 or sum(len(chunk.data) for chunk in logs.chunks) > 256 << 10:
            self.faults.append("a log report out of its bounds")
        for chunk in logs.chunks:
            if chunk.offset > taken.offset or not 1 <= len(chunk.data) <= 65_536:
                self.faults.append(f"a chunk at {chunk.offset} of {len(chunk.data)} after {taken.offset}")
                continue
            data = chunk.data[taken.offset - chunk.offset :]
            stream = taken.stdout if chunk.stream == types_pb2.LOG_STREAM_STDOUT else taken.stderr
            stream += data
            taken.offset += len(data)
        return self._acknowledged(logs.attempt_id, taken)

    def _acknowledged(self, attempt_id: str, taken: Taken) -> list[host_pb2.Acknowledged]:
        if not self.acknowledging:
            return []
        return [
            host_pb2.Acknowledged(
                attempt_id=attempt_id,
                epoch=taken.epoch,
                usage_number=len(taken.records),
                log_offset=taken.offset,
            )
        ]

    def _desired_message(self) -> host_pb2.SynchronizeResponse:
        for attempt_id, attempt in self.desired.items():
            taken = self.taken.setdefault(attempt_id, Taken())
            if self.acknowledging:
                attempt.usage_number_acknowledged = len(taken.records)
                attempt.log_offset_acknowledged = taken.offset
        return host_pb2.SynchronizeResponse(desired=host_pb2.Desired(attempts=self.desired.values()))

    def _send_desired(self) -> None:
        self._to_all(self._desired_message())

    def _to_all(self, message: host_pb2.SynchronizeResponse) -> None:
        for queue in self._streams.values():
            queue.put_nowait(message)


def desired_attempt(
    *command: str,
    attempt_id: str = "attempt_1",
    epoch: int = 1,
    gpu_uuids: tuple[str, ...] = (),
    paid_through_ms: int = 600_000,
    image: str = "",
    isolation: types_pb2.Isolation.ValueType = types_pb2.ISOLATION_PROCESS,
    grace_ms: int = 2_000,
    env: dict[str, str] | None = None,
) -> host_pb2.DesiredAttempt:
    return host_pb2.DesiredAttempt(
        attempt_id=attempt_id,
        epoch=epoch,
        spec=types_pb2.JobSpec(
            name="test",
            image=image,
            command=command,
            env=env or {},
            isolation_min=isolation,
            stop_grace_ms=grace_ms,
            gpus=types_pb2.GpuRequest(count=len(gpu_uuids)),
        ),
        gpu_uuids=gpu_uuids,
        paid_through_ms=paid_through_ms,
    )
