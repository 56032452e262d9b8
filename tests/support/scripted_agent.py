"""An agent that does what a test says, honest or not: it speaks host.proto over real mutual TLS."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runtime.channel import open_channel
from runtime.evidence import GpuUse, UsageRecord, chain_start, make_record
from usance.v1 import host_pb2 as h
from usance.v1 import host_pb2_grpc
from usance.v1 import types_pb2 as t

WAIT_S = 30.0
MODEL = "NVIDIA GeForce RTX 4090"
# An hour of 3.6 credits: a millisecond is a micro-credit.
PRICE_MICRO = 3_600_000


def signing_request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(kw_only=True)
class Identity:
    """What enrolment gives."""

    host_id: str
    key_pem: bytes
    certificate_pem: bytes
    authority_pem: bytes


async def enrol(market: str, authority_pem: bytes, secret: str) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    async with open_channel(market, authority_pem) as channel:
        request = h.EnrollRequest(token_secret=secret, csr_pem=signing_request(key))
        answer = await host_pb2_grpc.EnrolmentServiceStub(channel).Enroll(request, timeout=WAIT_S)
    return Identity(
        host_id=answer.host_id,
        key_pem=key_pem(key),
        certificate_pem=answer.certificate_pem,
        authority_pem=answer.authority_pem,
    )


@dataclass
class Run:
    """One attempt as the script has it run."""

    wanted: h.DesiredAttempt
    container_id: str = "container-1"
    records: list[UsageRecord] = field(default_factory=list)
    output: list[t.LogChunk] = field(default_factory=list)

    def is_in(self, state: t.AttemptState.ValueType, run_ms: int = 0, **changes: Any) -> h.AttemptReport:
        plain = {"attempt_id": self.wanted.attempt_id, "epoch": self.wanted.epoch}
        if state not in {t.ATTEMPT_STATE_PREPARING, t.ATTEMPT_STATE_ASSIGNED}:
            plain["container_id"] = self.container_id
        return h.AttemptReport(**{**plain, "state": state, "run_ms": run_ms, **changes})

    def prepares(self) -> h.AttemptReport:
        return self.is_in(t.ATTEMPT_STATE_PREPARING, detail="pulling image, 1 of 2 MB")

    def runs(self, run_ms: int, **changes: Any) -> h.AttemptReport:
        return self.is_in(t.ATTEMPT_STATE_RUNNING, run_ms, **changes)

    def ended(
        self,
        exit_code: int | None = 0,
        reason: t.EndReason.ValueType = t.END_REASON_EXITED,
        **changes: Any,
    ) -> h.AttemptReport:
        plain = {
            "exit_code": exit_code,
            "end_reason": reason,
            "usage_number_last": len(self.records),
            "log_totals": self.totals(),
        }
        run_ms = self.records[-1].end_ms if self.records else 0
        return self.is_in(t.ATTEMPT_STATE_ENDED, run_ms, **{**plain, **changes})

    def record(self, end_ms: int, *, gpus: tuple[GpuUse, ...] = ()) -> UsageRecord:
        """The honest next one."""
        last = self.records[-1] if self.records else None
        made = make_record(
            last.digest if last else chain_start(self.wanted.attempt_id, self.wanted.epoch),
            len(self.records) + 1,
            last.end_ms if last else 0,
            end_ms,
            gpus,
        )
        self.records.append(made)
        return made

    def writes(self, data: bytes, stream: t.LogStream.ValueType = t.LOG_STREAM_STDOUT) -> t.LogChunk:
        chunk = t.LogChunk(offset=sum(len(c.data) for c in self.output), stream=stream, data=data)
        self.output.append(chunk)
        return chunk

    def totals(self) -> t.LogTotals:
        out, err = (
            b"".join(c.data for c in self.output if c.stream == stream)
            for stream in (t.LOG_STREAM_STDOUT, t.LOG_STREAM_STDERR)
        )
        return t.LogTotals(
            stdout_bytes=len(out),
            stderr_bytes=len(err),
            stdout_sha256=hashlib.sha256(out).digest(),
            stderr_sha256=hashlib.sha256(err).digest(),
        )


class ScriptedAgent:
    """`connect`, then say things; each `beat`, `usage` and `logs` returns when it was taken in."""

    def __init__(self, address: str, identity: Identity, *, gpu_count: int = 1, **facts: Any) -> None:
        self.address = address
        self.identity = identity
        self.boot_id = "boot-1"
        self.instance = "run-1"
        self.facts = h.HostFacts(
            hostname="rig",
            cpu_count=8,
            memory_bytes=1 << 34,
            disk_free_bytes=1 << 36,
            gpus=[
                t.Gpu(uuid=f"GPU-{identity.host_id}-{n}", model=MODEL, vram_bytes=24 << 30)
                for n in range(gpu_count)
            ],
            **{"isolation": t.ISOLATION_CONTAINER, "executor": "scripted", **facts},
        )
        self.terms = h.Terms(prices=[h.GpuPrice(model=MODEL, gpu_hour_price_micro=PRICE_MICRO)])
        self.welcome: h.Welcome | None = None
        self.desired: h.Desired | None = None
        self.desired_count = 0
        self.drained = False
        self.acknowledged_together = 0
        self.error: grpc.aio.AioRpcError | None = None
        self.is_over = False
        self._acks: dict[str, list[h.Acknowledged]] = {}
        self._news = asyncio.Event()
        self._beats = 0
        self._known: tuple[str, int] | None = None

    @property
    def host_id(self) -> str:
        return self.identity.host_id

    async def connect(self) -> "ScriptedAgent":
        self._channel = open_channel(
            self.address, self.identity.authority_pem, self.identity.key_pem, self.identity.certificate_pem
        )
        self._call: Any = host_pb2_grpc.HostServiceStub(self._channel).Synchronize(wait_for_ready=True)
        self.welcome, self.desired, self.error, self.is_over = None, None, None, False
        self._reader = asyncio.create_task(self._read())
        await self.hello()
        await self.until(lambda: self.welcome is not None and self.desired is not None, "it is welcome")
        return self

    async def hello(self) -> None:
        message = h.Hello(
            agent_version="0",
            boot_id=self.boot_id,
            instance=self.instance,
            facts=self.facts,
            terms=self.terms,
        )
        await self.say(h.SynchronizeRequest(hello=message))

    async def say(self, message: h.SynchronizeRequest) -> None:
        await self._call.write(message)

    async def beat(self, *reports: h.AttemptReport) -> None:
        self._beats += 1
        seen = self.desired_count
        await self.say(h.SynchronizeRequest(beat=h.Beat(number=self._beats, attempts=reports)))
        await self.until(lambda: self.desired_count > seen, "the beat is answered")
        # That answer may have been on its way for another reason.
        await self._pass_by()

    async def usage(self, run: Run, *records: UsageRecord, epoch: int | None = None) -> h.Acknowledged:
        key = run.wanted.attempt_id
        await self.claim(key, run.wanted.epoch if epoch is None else epoch, *records)
        return await self._acknowledged(key)

    async def usages(self, *claims: tuple[Run, UsageRecord]) -> list[h.Acknowledged]:
        """A record of each, in one message."""
        reports = [
            h.UsageReport(attempt_id=run.wanted.attempt_id, epoch=run.wanted.epoch, records=[_record(record)])
            for run, record in claims
        ]
        await self.say(h.SynchronizeRequest(usages=h.UsageReports(reports=reports)))
        return [await self._acknowledged(run.wanted.attempt_id) for run, _ in claims]

    async def claim(self, attempt_id: str, epoch: int, *records: UsageRecord) -> None:
        """Say so, whether or not anybody will answer."""
        report = h.UsageReport(attempt_id=attempt_id, epoch=epoch, records=map(_record, records))
        await self.say(h.SynchronizeRequest(usage=report))

    async def logs(self, run: Run, *chunks: t.LogChunk) -> h.Acknowledged:
        report = h.LogReport(attempt_id=run.wanted.attempt_id, epoch=run.wanted.epoch, chunks=chunks)
        await self.say(h.SynchronizeRequest(logs=report))
        return await self._acknowledged(run.wanted.attempt_id)

    async def taken(self, container_id: str = "container-1") -> Run:
        """The next attempt that we are to run."""
        await self.until(
            lambda: self.desired is not None and bool(self.desired.attempts), "there is an order"
        )
        assert self.desired is not None
        wanted = self.desired.attempts[-1]
        self._known = wanted.attempt_id, wanted.epoch
        return Run(wanted, container_id)

    def wanted(self, run: Run) -> h.DesiredAttempt | None:
        """What the coordinator says of it now; None where it is not named any more."""
        assert self.desired is not None
        found = [a for a in self.desired.attempts if a.attempt_id == run.wanted.attempt_id]
        return found[0] if found else None

    def answered_for_nothing(self) -> None:
        """The coordinator knows none of our attempts any more: usage of none is acknowledged."""
        self._known = None

    async def until(self, condition: Callable[[], object], what: str) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():
                    if self.is_over:
                        raise AssertionError(f"the stream ended before {what}: {self.error}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain until {what}; desired: {self.desired}") from None

    async def over(self) -> None:
        """Until the stream has ended."""
        await asyncio.wait_for(asyncio.shield(self._reader), WAIT_S)

    async def leave(self) -> None:
        """As when the cable is pulled."""
        self._call.cancel()
        await self._reader
        await self._channel.close()

    async def _acknowledged(self, attempt_id: str) -> h.Acknowledged:
        acks = self._acks.setdefault(attempt_id, [])
        await self.until(lambda: acks, "it is acknowledged")
        return acks.pop(0)

    async def _pass_by(self) -> None:
        """Return when all that was said before has been taken in: an attempt of ours is always answered."""
        if self._known is not None:
            key, epoch = self._known
            await self.claim(key, epoch)
            await self._acknowledged(key)

    async def _read(self) -> None:
        try:
            async for message in self._call:
                kind = message.WhichOneof("message")
                if kind == "welcome":
                    self.welcome = message.welcome
                elif kind == "desired":
                    self.desired = message.desired
                    self.desired_count += 1
                elif kind in {"acknowledged", "acknowledged_many"}:
                    many = message.acknowledged_many.acknowledged
                    for ack in many if kind == "acknowledged_many" else [message.acknowledged]:
                        self._acks.setdefault(ack.attempt_id, []).append(ack)
                    self.acknowledged_together += len(many) > 1
                elif kind == "drain":
                    self.drained = True
                self._news.set()
        except grpc.aio.AioRpcError as error:
            self.error = error
        except asyncio.CancelledError:
            if not self._call.cancelled():
                raise
        finally:
            self.is_over = True
            self._news.set()


def _record(record: UsageRecord) -> t.UsageRecord:
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
