"""The agents' RPCs. One stream is one agent; one writer speaks on it."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coordinator.api import confidential, validate
from coordinator.api import convert_host as convert
from coordinator.api.arrivals import Arrivals
from coordinator.api.edge import Edge
from coordinator.api.gate import Context, certified_ms, host_id
from coordinator.api.lull import Lull
from coordinator.api.said import Said
from coordinator.domain.host import Certificate
from coordinator.domain.refusal import Refusal, RefusalCode, invalid
from coordinator.services import books, certificates, enrolment, gathered, hosts, strikes, synchronize
from coordinator.services.books import TIME_MS_MAX
from coordinator.services.desired import desired
from coordinator.services.synchronize import Ack
from coordinator.store.ports import Held
from usance.v1 import host_pb2 as h
from usance.v1 import host_pb2_grpc

_LOG = logging.getLogger(__name__)
CSR_BYTES_MAX = 8_192
# Signs a request for a host's certificate: (csr, host id, is it renewed in time) -> PEM, and what is noted.
Sign = Callable[[x509.CertificateSigningRequest, str, bool], tuple[bytes, Certificate]]


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """Gives hosts their certificates, and notes each before it is out."""

    edge: Edge
    sign: Sign
    # Of all authorities that are to be trusted.
    authority_pem: bytes

    async def issue(
        self, csr: x509.CertificateSigningRequest, name: str, *, renews: bool
    ) -> tuple[bytes, int]:
        """PEM, and until when it is good."""
        pem, noted = self.sign(csr, name, renews)
        now_ms = self.edge.clock.wall_ms()
        await self.edge.write(lambda tx: tx.insert_certificate(name, noted, now_ms))
        return pem, noted.expires_ms


class EnrolmentServicer(host_pb2_grpc.EnrolmentServiceServicer):
    def __init__(self, edge: Edge, issuer: Issuer) -> None:
        self._edge = edge
        self._issuer = issuer

    async def Enroll(self, request: h.EnrollRequest, context: Context) -> h.EnrollResponse:  # noqa: N802, ARG002
        csr = _signing_request(request.csr_pem)
        key = csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        key_digest, now = hashlib.sha256(key).digest(), self._edge.now()
        name = await self._edge.write(lambda tx: enrolment.enroll(tx, request.token_secret, key_digest, now))
        pem, expires_ms = await self._issuer.issue(csr, name, renews=request.renews)
        return h.EnrollResponse(
            host_id=name,
            certificate_pem=pem,
            authority_pem=self._issuer.authority_pem,
            expires_at_ms=expires_ms,
        )


def _signing_request(pem: bytes) -> x509.CertificateSigningRequest:
    remedy = "a PEM certificate signing request for a P-256 key"
    if len(pem) > CSR_BYTES_MAX:
        raise invalid("csr_pem", remedy)
    try:
        csr = x509.load_pem_x509_csr(pem)
        key, is_signed = csr.public_key(), csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise invalid("csr_pem", remedy) from None
    if not is_signed or not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise invalid("csr_pem", remedy)
    return csr


class HostServicer(host_pb2_grpc.HostServiceServicer):
    def __init__(self, edge: Edge, issuer: Issuer) -> None:
        self._edge = edge
        self._issuer = issuer
        self._arrivals = Arrivals()
        self._sessions: dict[str, _Session] = {}

    async def RenewCertificate(  # noqa: N802
        self,
        request: h.RenewCertificateRequest,
        context: Context,  # noqa: ARG002
    ) -> h.RenewCertificateResponse:
        name, csr = host_id(), _signing_request(request.csr_pem)
        pem, expires_ms = await self._issuer.issue(csr, name, renews=True)
        return h.RenewCertificateResponse(
            certificate_pem=pem, authority_pem=self._issuer.authority_pem, expires_at_ms=expires_ms
        )

    async def Synchronize(  # noqa: N802
        self,
        request_iterator: AsyncIterator[h.SynchronizeRequest],
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[h.SynchronizeResponse]:
        session = _Session(self._edge, host_id(), certified_ms(), self._arrivals)
        older = self._sessions.get(session.host_id)
        if older is not None and session.certified_ms < older.certified_ms:
            await self._refuse_copy(session)
        self._sessions[session.host_id] = session
        if older is not None:
            older.supersede()
        reader = asyncio.create_task(session.read(request_iterator))
        try:
            with (
                self._edge.bell.hears(session.host_id, session),
                self._edge.bell.hears(hosts.revoked_topic(session.host_id), session.revoked),
            ):
                async for message in session.messages(reader):
                    yield message
        finally:
            reader.cancel()
            await asyncio.wait({reader})
            if not reader.cancelled():
                reader.exception()  # whatever it was, `messages` has told it, or nobody listens any more
            if self._sessions.get(session.host_id) is session:
                del self._sessions[session.host_id]
                self._edge.figures.left(session.host_id)

    async def _refuse_copy(self, session: "_Session") -> None:
        """The host has had a certificate since, for another key, and uses it: whoever comes with the one from
        before has a copy, and nothing newer to prove."""
        name, now_ms = session.host_id, self._edge.clock.wall_ms()
        _LOG.warning("%s: somebody came with a certificate that it has replaced", name)
        await self._edge.write(lambda tx: strikes.copied(tx, name, session.certified_ms, now_ms))
        raise Refusal(RefusalCode.SUPERSEDED, "this host is connected with a newer certificate than this one")

    async def GetStanding(  # noqa: N802
        self,
        request: h.GetStandingRequest,
        context: Context,  # noqa: ARG002
    ) -> h.GetStandingResponse:
        name, since_ms = host_id(), validate.whole("since_ms", request.since_ms, 0, TIME_MS_MAX)
        host, (count, earned_micro) = await self._edge.read(
            lambda tx: (hosts.existing(tx, name), books.earned_by_host(tx, name, since_ms))
        )
        return h.GetStandingResponse(
            state=convert.host_state_to(host),
            reason=host.reason,
            attempt_count=count,
            earned_micro=earned_micro,
        )

    async def SetHold(self, request: h.SetHoldRequest, context: Context) -> h.SetHoldResponse:  # noqa: N802, ARG002
        name, request_id = host_id(), validate.request_id(request.request_id)
        wish, now_ms = convert.wish(request.wish), self._edge.clock.wall_ms()
        host = await self._edge.write(
            lambda tx: hosts.wish_at_the_machine(tx, name, request_id, wish, now_ms)
        )
        return h.SetHoldResponse(state=convert.host_state_to(host), reason=host.reason)

    @property
    def connected(self) -> int:
        """How many agents are."""
        return len(self._sessions)

    def drain(self, spread_ms: int) -> None:
        """Ask every agent to come back on another stream."""
        for session in self._sessions.values():
            session.drain(spread_ms)


class _Revocation:
    def __init__(self, rung: asyncio.Event) -> None:
        self._rung = rung
        self.is_set = False

    def rung(self, held: Held | None) -> None:  # noqa: ARG002 - it is no host's topic
        self.is_set = True
        self._rung.set()


class _Session:
    """What is to be said is kept as state, not as a queue, so it can't pile up: the latest whole `desired`,
    and for each attempt the latest acknowledgement."""

    def __init__(self, edge: Edge, name: str, certified: int, arrivals: Arrivals) -> None:
        self.host_id = name
        self.certified_ms = certified
        self._arrivals = arrivals
        self._rung = asyncio.Event()
        self._edge = edge
        self._boot_id = ""
        self._greeted = False
        self._acks: dict[str, Ack] = {}
        # It has sent what only an agent sends that knows their like in our answers.
        self._takes_many = False
        self._drain_ms: int | None = None
        self._superseded = False
        # Rung when the host is refused from now on.
        self.revoked = _Revocation(self._rung)
        self._said = Said()
        self._lull = Lull(edge.rules.reconnect_window_ms)
        self._rings = 0

    def rung(self, held: Held | None) -> None:
        """What the host should hold may have changed, or what we think of it."""
        self._rings += 1
        self._lull.end()
        self._said.rung(held)
        self._rung.set()

    def supersede(self) -> None:
        self._superseded = True
        self._rung.set()

    def drain(self, spread_ms: int) -> None:
        self._drain_ms = spread_ms
        self._rung.set()

    async def read(self, requests: AsyncIterator[h.SynchronizeRequest]) -> None:
        async for request in requests:
            if self._superseded:
                # What an older connection still says is older news than the newer one's.
                raise _superseded()
            if self.revoked.is_set:
                raise certificates.revoked(self.host_id)
            await self._take(request)
            self._rung.set()

    async def messages(self, reader: asyncio.Task[None]) -> AsyncIterator[h.SynchronizeResponse]:
        """Everything that is to be said, as it comes up; ends with the reader."""
        reader.add_done_callback(lambda _: self._rung.set())
        welcomed = False
        while not reader.done():
            await self._rung.wait()
            self._rung.clear()
            if self._superseded:
                raise _superseded()
            if self.revoked.is_set:
                raise certificates.revoked(self.host_id)
            if not self._greeted:
                continue
            if not welcomed:
                welcomed = True
                yield self._welcome()
            for answer in self._acknowledged():
                yield answer
            if self._said.is_stale:
                yield await self._desired()
            elif self._said.is_due and self._said.message is not None:
                self._said.is_due = False
                yield self._said.message
            if self._drain_ms is not None:
                yield h.SynchronizeResponse(drain=h.Drain(spread_ms=self._drain_ms))
                self._drain_ms = None
        await reader

    def _acknowledged(self) -> list[h.SynchronizeResponse]:
        acks, self._acks = [convert.ack_to(ack) for ack in self._acks.values()], {}
        if self._takes_many and len(acks) > 1:
            return [h.SynchronizeResponse(acknowledged_many=h.AcknowledgedMany(acknowledged=acks))]
        return [h.SynchronizeResponse(acknowledged=ack) for ack in acks]

    async def _desired(self) -> h.SynchronizeResponse:
        """Read as it is being said, by the one who says it: an older state can't follow a newer one."""
        self._said.begin_to_read()
        wanted = await self._edge.gather_read(desired, self.host_id)
        told = (confidential.wanted_to(item, self._edge.vault) for item in wanted)
        message = h.SynchronizeResponse(desired=h.Desired(attempts=filter(None, told)))
        self._said.was_read(wanted, message)
        return message

    def _welcome(self) -> h.SynchronizeResponse:
        rules = self._edge.rules
        return h.SynchronizeResponse(
            welcome=h.Welcome(
                host_id=self.host_id,
                beat_interval_ms=rules.beat_interval_ms,
                reconnect_window_ms=rules.reconnect_window_ms,
                usage_reports_max=convert.ATTEMPTS_MAX,
            )
        )

    async def _take(self, request: h.SynchronizeRequest) -> None:
        kind = request.WhichOneof("message")
        if kind == "hello":
            await self._hello(request.hello)
        elif not self._greeted:
            raise invalid("message", "hello is the first message")
        elif kind == "beat":
            await self._beat(request.beat)
        elif kind in {"usage", "usages"}:
            self._takes_many = self._takes_many or kind == "usages"
            await self._usage(convert.usages(request))
        elif kind == "logs":
            await self._logs(request.logs)

    async def _hello(self, message: h.Hello) -> None:
        validate.line("hello.agent_version", message.agent_version, 64)
        facts, terms, now = convert.facts(message.facts), convert.terms(message.terms), self._edge.now()
        self._boot_id = validate.line("hello.boot_id", message.boot_id, 64, empty=False)
        hello = gathered.Hello(host_id=self.host_id, facts=facts, terms=terms, now=now)
        await self._edge.gather(gathered.hellos, hello)
        self._greeted = True
        instance = validate.line("hello.instance", message.instance, 64)
        if self._arrivals.came(self.host_id, f"{self._boot_id} {instance}", now.wall_ms):
            _LOG.warning("%s: two machines take turns with its identity", self.host_id)
            await self._edge.write(lambda tx: strikes.two_machines(tx, self.host_id, now.wall_ms))

    async def _beat(self, message: h.Beat) -> None:
        reports, now = convert.reports(message), self._edge.now()
        self._edge.figures.said(self.host_id, message.attempts, now.wall_ms)
        reports = self._said.news(reports)
        answered = (not reports and self._said.holds_nothing) or self._lull.covers(reports, now)
        if answered:
            self._said.is_due = True
            self._rung.set()
            if self._lull.passes():
                self._edge.heard[self.host_id] = now
                return
        # Who holds nothing does not wait for our look.
        self._lull.look()
        rings = self._rings
        beat = gathered.Beat(
            host_id=self.host_id,
            boot_id=self._boot_id,
            reports=reports,
            window_ms=self._edge.rules.reconnect_window_ms,
            now=now,
        )
        steady = await self._edge.gather(gathered.beats, beat)
        # What was rung for in the meantime may be newer than this answer.
        if steady is None:
            # Where something has happened, it was rung for.
            self._said.is_stale = self._said.is_stale or rings == self._rings
        elif rings != self._rings or not self._said.renew(steady):
            self._said.is_stale = True
        else:
            if all(attempt.paid_through_ms - attempt.run_ms_reported >= beat.window_ms for attempt in steady):
                self._lull.begin(reports, now)
            self._said.is_due = self._said.is_due or not answered

    async def _usage(self, reports: Sequence[h.UsageReport]) -> None:
        now, window_ms = self._edge.now(), self._edge.rules.reconnect_window_ms
        message = [
            gathered.Usage(
                host_id=self.host_id,
                boot_id=self._boot_id,
                attempt_id=validate.name("usage.attempt_id", report.attempt_id),
                epoch=report.epoch,
                records=convert.records(report),
                window_ms=window_ms,
                now=now,
            )
            for report in reports
        ]
        weight = sum(max(1, len(item.records)) for item in message)
        for ack in await self._edge.gather(gathered.usages, message, weight):
            self._acks[ack.attempt_id] = ack

    async def _logs(self, message: h.LogReport) -> None:
        chunks, epoch = convert.chunks(message), message.epoch
        name = validate.name("logs.attempt_id", message.attempt_id)
        now, most = self._edge.now(), self._edge.rules.job_output_bytes_max
        ack = await self._edge.write(
            lambda tx: synchronize.logs(tx, self.host_id, name, epoch, chunks, most, now)
        )
        if ack is not None:
            self._acks[ack.attempt_id] = ack


def _superseded() -> Refusal:
    return Refusal(RefusalCode.SUPERSEDED, "this host has a newer connection")
