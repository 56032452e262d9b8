"""A simulated agent's side of the conversation, over gRPC or over a bare TLS socket."""

import asyncio
import hashlib
import ssl
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio

from benchmarks.floors import framed, frames
from runtime.channel import SERVER_NAME, client_options
from runtime.evidence import GpuUse, chain_start, make_record
from usance.v1 import host_pb2 as h
from usance.v1 import host_pb2_grpc
from usance.v1 import types_pb2 as t

BOOT_ID = "6b2f0000-0000-4000-8000-000000000001"
MODEL = "NVIDIA H100"
GPUS_PER_HOST = 8
RECORD_MS = 1_000
_NOTHING = hashlib.sha256().digest()
# Without it gRPC would share connections between agents.
_OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)


class Agent(Protocol):
    async def open(self) -> None:
        """Connect, and be told what to hold."""
        ...

    async def beat(self) -> None:
        """One heartbeat and its answer."""
        ...

    def prepare(self, messages: int, count: int) -> None:
        """Make messages of usage for `use` to send, each with the next `count` records of every attempt."""
        ...

    async def use(self) -> int:
        """The next such message and its acknowledgement; of how many records, 0 when all are sent."""
        ...

    async def work(self, on_attempt: Callable[[], None]) -> None:
        """Take whatever comes and report it as done, for as long as the connection lasts."""
        ...

    async def wait_for_end(self) -> float | None:
        """Until the connection ends, or is to be left: then, in how many seconds at most."""
        ...

    async def close(self) -> None: ...


@dataclass
class _Chain:
    """Where the usage records of an attempt have come to."""

    attempt_id: str
    number: int = 0
    digest: bytes = b""

    def next(self, count: int) -> h.UsageReport:
        report = h.UsageReport(attempt_id=self.attempt_id, epoch=1)
        uuid = f"GPU-{self.attempt_id}"
        for _ in range(count):
            use = GpuUse(gpu_uuid=uuid, utilization_percent=97, memory_used_bytes=70 << 30, energy_mj=700_000)
            start_ms = self.number * RECORD_MS
            previous = self.digest or chain_start(self.attempt_id, 1)
            record = make_record(previous, self.number + 1, start_ms, start_ms + RECORD_MS, [use])
            self.number, self.digest = record.number, record.digest
            report.records.append(
                t.UsageRecord(
                    number=record.number,
                    start_ms=record.start_ms,
                    end_ms=record.end_ms,
                    gpus=[
                        t.GpuUse(
                            gpu_uuid=uuid,
                            utilization_percent=use.utilization_percent,
                            memory_used_bytes=use.memory_used_bytes,
                            energy_mj=use.energy_mj,
                        )
                    ],
                    previous_digest=record.previous_digest,
                    digest=record.digest,
                )
            )
        return report


class _Speaker:
    """What an agent says, whatever it says it over."""

    def __init__(self, attempts: Sequence[str]) -> None:
        self._chains = [_Chain(attempt_id=attempt) for attempt in attempts]
        self._prepared: deque[h.UsageReports] = deque()
        self._number = 0
        self._run_ms = 0

    def hello(self) -> h.SynchronizeRequest:
        gpus = [chain.attempt_id for chain in self._chains] or [
            str(id(self) + i) for i in range(GPUS_PER_HOST)
        ]
        return h.SynchronizeRequest(
            hello=h.Hello(
                agent_version="0.1.0",
                boot_id=BOOT_ID,
                facts=h.HostFacts(
                    hostname="benchmark",
                    cpu_count=64,
                    memory_bytes=512 << 30,
                    disk_free_bytes=1 << 40,
                    gpus=[
                        t.Gpu(uuid=f"GPU-{name}", model=MODEL, vram_bytes=80 << 30, simulated=True)
                        for name in gpus
                    ],
                    isolation=t.ISOLATION_CONTAINER,
                    executor="benchmark",
                ),
                terms=h.Terms(prices=[h.GpuPrice(model=MODEL, gpu_hour_price_micro=3_600_000_000)]),
            )
        )

    def beat_message(self) -> h.SynchronizeRequest:
        self._number += 1
        self._run_ms += 10
        held = [
            h.AttemptReport(
                attempt_id=chain.attempt_id,
                epoch=1,
                state=t.ATTEMPT_STATE_RUNNING,
                container_id=chain.attempt_id,
                run_ms=self._run_ms,
            )
            for chain in self._chains
        ]
        return h.SynchronizeRequest(beat=h.Beat(number=self._number, attempts=held))

    def ended_message(self, held: Iterable[tuple[str, int]]) -> h.SynchronizeRequest:
        self._number += 1
        ended = [
            h.AttemptReport(
                attempt_id=attempt_id,
                epoch=epoch,
                state=t.ATTEMPT_STATE_ENDED,
                exit_code=0,
                end_reason=t.END_REASON_EXITED,
                log_totals=t.LogTotals(stdout_sha256=_NOTHING, stderr_sha256=_NOTHING),
            )
            for attempt_id, epoch in held
        ]
        return h.SynchronizeRequest(beat=h.Beat(number=self._number, attempts=ended))

    def prepare(self, messages: int, count: int) -> None:
        if self._prepared:
            # What was not sent is made anew: chains go on from what was.
            for chain, report in zip(self._chains, self._prepared[0].reports, strict=True):
                first = report.records[0]
                chain.number, chain.digest = first.number - 1, first.previous_digest
        self._prepared = deque(
            h.UsageReports(reports=[chain.next(count) for chain in self._chains]) for _ in range(messages)
        )

    def usage_message(self) -> h.UsageReports | None:
        return self._prepared.popleft() if self._prepared else None


class GrpcAgent:
    def __init__(
        self, target: str, authority_pem: str, key_pem: str, certificate_pem: str, attempts: Sequence[str]
    ) -> None:
        self._speaker = _Speaker(attempts)
        self._target = target
        self._pems = authority_pem.encode(), key_pem.encode(), certificate_pem.encode()
        self._channel: Any = None
        self._call: Any = None

    async def open(self) -> None:
        await self.close()
        options = [*client_options(), _OWN_CONNECTION]
        credentials = grpc.ssl_channel_credentials(*self._pems)
        self._channel = grpc.aio.secure_channel(self._target, credentials, options=options)
        self._call = host_pb2_grpc.HostServiceStub(self._channel).Synchronize()
        await self._call.write(self._speaker.hello())
        await self._until("desired")

    async def beat(self) -> None:
        await self._call.write(self._speaker.beat_message())
        await self._until("desired")

    def prepare(self, messages: int, count: int) -> None:
        self._speaker.prepare(messages, count)

    async def use(self) -> int:
        message = self._speaker.usage_message()
        if message is None:
            return 0
        await self._call.write(h.SynchronizeRequest(usages=message))
        answer = await self._until("acknowledged_many")
        numbers = {ack.attempt_id: ack.usage_number for ack in answer.acknowledged_many.acknowledged}
        if numbers != {report.attempt_id: report.records[-1].number for report in message.reports}:
            raise ValueError(f"not all was taken in: {numbers}")
        return sum(len(report.records) for report in message.reports)

    async def work(self, on_attempt: Callable[[], None]) -> None:
        seen = set[tuple[str, int]]()
        while (answer := await self._call.read()) is not grpc.aio.EOF:
            if not answer.HasField("desired"):
                continue
            held = {(attempt.attempt_id, attempt.epoch) for attempt in answer.desired.attempts}
            fresh = held - seen
            seen = held
            for _ in fresh:
                on_attempt()
            if fresh:
                await self._call.write(self._speaker.ended_message(held))

    async def say(self, logs: h.LogReport) -> None:
        await self._call.write(h.SynchronizeRequest(logs=logs))

    async def log_offset(self) -> int:
        """How much of the output the next acknowledgement knows."""
        return (await self._until("acknowledged")).acknowledged.log_offset

    async def wait_for_end(self) -> float | None:
        spread_s = None
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            while spread_s is None and (answer := await self._call.read()) is not grpc.aio.EOF:
                if answer.HasField("drain"):
                    spread_s = answer.drain.spread_ms / 1_000
        if spread_s is None:
            await self.close()
        return spread_s

    async def close(self) -> None:
        """With the channel: as the agent does it, each try has one of its own."""
        if self._call is not None:
            self._call.cancel()
        if self._channel is not None:
            await self._channel.close()
        self._call = self._channel = None

    async def _until(self, kind: str) -> h.SynchronizeResponse:
        while True:
            answer = await self._call.read()
            if answer is grpc.aio.EOF:
                raise ConnectionError("the stream ended")
            assert isinstance(answer, h.SynchronizeResponse)
            if answer.WhichOneof("message") == kind:
                return answer


class BareAgent(asyncio.Protocol):
    def __init__(self, target: str, context: ssl.SSLContext, attempts: Sequence[str]) -> None:
        self._speaker = _Speaker(attempts)
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._context = context
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._told: asyncio.Future[None] | None = None
        self._wanted = ""

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(
            lambda: self, self._host, self._port, ssl=self._context, server_hostname=SERVER_NAME,
            ssl_handshake_timeout=60,
        )  # fmt: skip
        await self._say(self._speaker.hello(), "desired")

    async def beat(self) -> None:
        await self._say(self._speaker.beat_message(), "desired")

    def prepare(self, messages: int, count: int) -> None:
        raise NotImplementedError("a floor takes no usage")

    async def use(self) -> int:
        raise NotImplementedError("a floor takes no usage")

    async def work(self, on_attempt: Callable[[], None]) -> None:
        raise NotImplementedError("a floor has no jobs")

    async def wait_for_end(self) -> float | None:
        raise NotImplementedError("nobody kills a floor")

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _say(self, message: h.SynchronizeRequest, wanted: str) -> None:
        assert self._transport is not None
        self._wanted, self._told = wanted, asyncio.get_running_loop().create_future()
        self._transport.write(framed(message.SerializeToString()))
        await self._told

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for message in frames(self._buffer):
            kind = h.SynchronizeResponse.FromString(message).WhichOneof("message")
            if kind == self._wanted and self._told is not None and not self._told.done():
                self._told.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._told is not None and not self._told.done():
            self._told.set_exception(error or ConnectionError("the connection ended"))


def bare_context(authority_pem: str, key_pem: str, certificate_pem: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=authority_pem)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(certificate_pem + key_pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context
