"""What stands behind the doors: every service of ours, and those that every gRPC tool knows."""

import asyncio
from importlib.metadata import version

import grpc.aio
from cryptography.x509 import CertificateSigningRequest
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator import identity
from coordinator.api.books import BooksServicer, TokenServicer
from coordinator.api.edge import Edge
from coordinator.api.gate import Gate
from coordinator.api.host import EnrolmentServicer, HostServicer, Issuer
from coordinator.api.keys import Keys
from coordinator.api.limits import Allowance, Limits
from coordinator.api.market import MarketServicer
from coordinator.api.metrics import Metrics
from coordinator.api.operations import OperationsServicer
from coordinator.api.people import AccountServicer, AdminServicer, SellerServicer
from coordinator.api.tally import Tally
from coordinator.api.uses import Uses
from coordinator.domain.account import Bearer
from coordinator.domain.act import Act
from coordinator.domain.bucket import Pace
from coordinator.domain.host import Certificate
from coordinator.doors import Bounds
from coordinator.services import acts, certificates
from coordinator.services.mint import digest_of
from coordinator.settings import Settings
from coordinator.store.database import Database
from runtime.clock import Clock
from usance.v1 import books_pb2, books_pb2_grpc, host_pb2, host_pb2_grpc, market_pb2, market_pb2_grpc


def register(
    edge: Edge,
    issuer: Issuer,
    host_servicer: HostServicer,
    healthy: health.aio.HealthServicer,
    server: grpc.aio.Server,
) -> None:
    """Ours; and health and reflection, as every gRPC tool knows them."""
    market_pb2_grpc.add_MarketServiceServicer_to_server(MarketServicer(edge), server)
    market_pb2_grpc.add_AccountServiceServicer_to_server(AccountServicer(edge), server)
    market_pb2_grpc.add_SellerServiceServicer_to_server(SellerServicer(edge, issuer.authority_pem), server)
    market_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(edge), server)
    books_pb2_grpc.add_TokenServiceServicer_to_server(TokenServicer(edge), server)
    books_pb2_grpc.add_BooksServiceServicer_to_server(BooksServicer(edge), server)
    books_pb2_grpc.add_OperationsServiceServicer_to_server(OperationsServicer(edge), server)
    host_pb2_grpc.add_EnrolmentServiceServicer_to_server(EnrolmentServicer(edge, issuer), server)
    host_pb2_grpc.add_HostServiceServicer_to_server(host_servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    names = [
        service.full_name
        for file in (market_pb2.DESCRIPTOR, books_pb2.DESCRIPTOR, host_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
    ]
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)


def figures_of(
    metrics: Metrics, database: Database, host_servicer: HostServicer, who: identity.Identity, clock: Clock
) -> None:
    """What is known where it is, and read when somebody asks."""
    metrics.info.labels(version("usance"), database.kind).set(1)
    for name, ends_ms in identity.ends_ms(who).items():
        metrics.certificate_ends.labels(name).set(ends_ms / 1_000)
    metrics.agents.set_function(lambda: host_servicer.connected)
    metrics.writes_waiting.set_function(lambda: database.writes_waiting)
    metrics.connections.set_function(lambda: database.connections)
    database.watcher = Tally(metrics, clock)


def issuer_of(edge: Edge, who: identity.Identity, days: int) -> Issuer:
    def sign(csr: CertificateSigningRequest, host_id: str, renews: bool) -> tuple[bytes, Certificate]:
        good_days = days if renews else identity.HOST_DAYS
        issued = who.issue_host(csr, host_id, edge.clock.wall_ms(), good_days)
        noted = Certificate(
            serial=issued.serial, authority_digest=issued.authority_digest, expires_ms=issued.expires_ms
        )
        return issued.pem, noted

    return Issuer(edge=edge, sign=sign, authority_pem=who.authority_pem)


def gate_of(
    limits: Limits,
    keys: Keys,
    database: Database,
    uses: Uses,
    metrics: Metrics,
    clock: Clock,
    opened: asyncio.Event,
) -> Gate:
    async def authenticate(token: str) -> Bearer:
        found = await keys.owner(token)
        uses.used(digest_of(token), clock.wall_ms())
        return found

    async def recognise(host_id: str) -> None:
        refusal = await asyncio.wrap_future(database.gather_read(certificates.recognise, host_id))
        if refusal is not None:
            raise refusal

    def keep(act: Act) -> asyncio.Future[None]:
        return asyncio.wrap_future(database.gather(acts.keep_all, act))

    return Gate(authenticate, recognise, keep, limits, metrics, clock, opened)


def bounds_of(settings: Settings) -> Bounds:
    return Bounds(
        connections_max=settings.connections_max,
        handshake_ms_max=settings.handshake_ms_max,
        idle_ms=settings.idle_connection_ms,
        message_bytes_max=settings.message_bytes_max,
    )


def allowance_of(settings: Settings) -> Allowance:
    return Allowance(
        requests=Pace(per_second=settings.account_requests_per_second, burst=settings.account_requests_burst),
        anonymous=Pace(per_second=settings.enrolments_per_second, burst=settings.enrolments_burst),
        failures=Pace(per_second=settings.bad_tokens_per_second, burst=settings.bad_tokens_burst),
        streams_max=settings.account_streams_max,
        open_jobs_max=settings.account_open_jobs_max,
    )
