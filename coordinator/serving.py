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
from coordinator.api.hashing import Cost, Hashing
from coordinator.api.host import EnrolmentServicer, HostServicer, Issuer
from coordinator.api.jwks import Jwks, over_http
from coordinator.api.keys import Keys
from coordinator.api.limits import Allowance, Limits
from coordinator.api.login import LoginServicer, PeopleServicer, SessionServicer, Signing
from coordinator.api.market import MarketServicer
from coordinator.api.metrics import Metrics
from coordinator.api.oidc import Provider
from coordinator.api.operations import OperationsServicer
from coordinator.api.people import AccountServicer, AdminServicer, SellerServicer
from coordinator.api.slowing import Slowing
from coordinator.api.tally import Tally
from coordinator.api.trail import Trail
from coordinator.api.uses import Uses
from coordinator.domain import oidc
from coordinator.domain.account import TOKEN_NAME_PREFIX, Bearer, Role
from coordinator.domain.act import Act
from coordinator.domain.bucket import Pace
from coordinator.domain.host import Certificate
from coordinator.domain.login import Slowness
from coordinator.doors import Bounds
from coordinator.services import acts, certificates
from coordinator.services.mint import Mint, digest_of
from coordinator.services.sessions import Issuing
from coordinator.settings import Settings, SettingsError
from coordinator.store.database import Database
from runtime.clock import Clock
from runtime.tracing import Tracer, TracesError, open_tracer
from usance.v1 import (
    books_pb2,
    books_pb2_grpc,
    host_pb2,
    host_pb2_grpc,
    login_pb2,
    login_pb2_grpc,
    market_pb2,
    market_pb2_grpc,
)

DAY_MS = 86_400_000


def register(
    edge: Edge,
    signing: Signing,
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
    login_pb2_grpc.add_LoginServiceServicer_to_server(LoginServicer(edge, signing), server)
    login_pb2_grpc.add_SessionServiceServicer_to_server(SessionServicer(edge, signing), server)
    login_pb2_grpc.add_PeopleServiceServicer_to_server(PeopleServicer(edge, signing), server)
    host_pb2_grpc.add_EnrolmentServiceServicer_to_server(EnrolmentServicer(edge, issuer), server)
    host_pb2_grpc.add_HostServiceServicer_to_server(host_servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    names = [
        service.full_name
        for file in (market_pb2.DESCRIPTOR, books_pb2.DESCRIPTOR, login_pb2.DESCRIPTOR, host_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
    ]
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)


def tracer_of(settings: Settings) -> Tracer:
    try:
        return open_tracer("usance-coordinator", settings.traces)
    except TracesError as error:
        raise SettingsError(f"traces: {error}") from error


def figures_of(
    metrics: Metrics,
    database: Database,
    host_servicer: HostServicer,
    who: identity.Identity,
    clock: Clock,
    traces: Tracer,
) -> None:
    """What is known where it is, and read when somebody asks."""
    metrics.info.labels(version("usance"), database.kind).set(1)
    for name, ends_ms in identity.ends_ms(who).items():
        metrics.certificate_ends.labels(name).set(ends_ms / 1_000)
    metrics.agents.set_function(lambda: host_servicer.connected)
    metrics.writes_waiting.set_function(lambda: database.writes_waiting)
    metrics.connections.set_function(lambda: database.connections)
    database.watcher = Tally(metrics, clock, Trail(traces))


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
    traces: Tracer,
) -> Gate:
    async def authenticate(token: str) -> Bearer:
        found = await keys.owner(token)
        if found.token_id.startswith(TOKEN_NAME_PREFIX):
            uses.used(digest_of(token), clock.wall_ms())
        return found

    async def recognise(host_id: str) -> None:
        refusal = await asyncio.wrap_future(database.gather_read(certificates.recognise, host_id))
        if refusal is not None:
            raise refusal

    def keep(act: Act) -> asyncio.Future[None]:
        return asyncio.wrap_future(database.gather(acts.keep_all, act))

    return Gate(authenticate, recognise, keep, limits, metrics, clock, opened, traces)


def signing_of(settings: Settings, limits: Limits, mint: Mint, clock: Clock) -> Signing:
    longest_ms = settings.login_wait_seconds_max * 1_000
    return Signing(
        hashing=Hashing(
            Cost(
                memory_mib=settings.password_memory_mib,
                passes=settings.password_passes,
                lanes=settings.password_lanes,
            ),
            settings.password_checks_at_once,
        ),
        slowing=Slowing(
            Slowness(free=settings.login_failures_free, wait_ms_max=longest_ms),
            Slowness(free=settings.address_login_failures_free, wait_ms_max=longest_ms),
            clock,
        ),
        limits=limits,
        issuing=Issuing(
            mint=mint,
            access_ms=settings.access_token_minutes * 60_000,
            session_ms=settings.session_days * DAY_MS,
        ),
        issuer=settings.oidc_issuer,
    )


def provider_of(settings: Settings, database: Database, clock: Clock) -> Provider | None:
    """The operator's identity provider, where there is one."""
    if not settings.oidc_issuer:
        return None
    terms = oidc.Terms(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        leeway_s=settings.oidc_leeway_seconds,
        scope_claim=settings.oidc_scope_claim,
        scope_map=oidc.scope_map_of(settings.oidc_scope_map),
        name_claim=settings.oidc_name_claim,
        roles=frozenset(map(Role, settings.oidc_new_accounts.split())),
    )
    keys = Jwks(over_http(settings.oidc_issuer, settings.oidc_jwks_url, settings.oidc_ca), clock)
    return Provider(terms, settings.oidc_algorithms.split(), keys, database, clock)


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
        output_bytes_max=settings.account_output_mib_max << 20,
    )
