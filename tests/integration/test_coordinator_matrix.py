"""Every RPC of the contract by every kind of caller: allowed, or refused in exactly these words."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from coordinator.api.access import ACCESS, Access
from coordinator.domain.account import Role, Scope
from runtime.channel import open_channel
from runtime.ids import new_uuid
from tests.support.identity_provider import AUDIENCE, IdentityProvider
from tests.support.running_coordinator import Person, Running, job_spec
from tests.support.scripts import Play, refusal
from tests.support.signing_in import accept, cheap, invitation, login, refresh
from usance.v1 import books_pb2, host_pb2, login_pb2, market_pb2
from usance.v1 import books_pb2 as b
from usance.v1 import login_pb2 as g
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

# What a call says that was let in: its request was looked at. Empty requests are mostly not good enough.
ADMITTED = {"OK", "INVALID_FIELD", "NOT_FOUND", "ENROLMENT_REFUSED"}
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in (market_pb2, books_pb2, login_pb2, host_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
MODULES = {file.DESCRIPTOR.name: file for file in (market_pb2, books_pb2, login_pb2, host_pb2)}
_ASKED_MOST = 3


@dataclass(kw_only=True)
class Caller:
    """One kind: what it comes with, and what it may."""

    name: str
    channel: grpc.aio.Channel
    token: str = ""
    roles: frozenset[Role] = frozenset()
    scopes: frozenset[Scope] = field(default_factory=lambda: frozenset(Scope))
    is_good: bool = True

    def expected(self, method: str) -> set[str]:
        rule = ACCESS[method]
        if rule.access is Access.ANYBODY:
            return ADMITTED
        if rule.access is Access.HOST or not self.is_good:
            return {"UNAUTHENTICATED"}
        if rule.access is not Access.ACCOUNT and Role(str(rule.access)) not in self.roles:
            return {"FORBIDDEN"}
        if rule.scope is not None and rule.scope not in self.scopes:
            return {"FORBIDDEN"}
        return ADMITTED

    async def says(self, method: str, request: Any | None = None) -> str:
        """What the call is answered with.

        Who is refused while its first message is on the way may hear of a broken stream from its own gRPC,
        and not the word of the coordinator, which has details: it is asked again.
        """
        for _ in range(_ASKED_MOST):
            said, is_ours = await self._ask(method, request)
            if is_ours:
                break
        return said

    async def _ask(self, method: str, request: Any | None) -> tuple[str, bool]:
        described = METHODS[method]
        kind = _class_of(described.input_type)
        message = kind() if request is None else request
        metadata = (("authorization", f"Bearer {self.token}"),) if self.token else ()
        codecs = {
            "request_serializer": kind.SerializeToString,
            "response_deserializer": _class_of(described.output_type).FromString,
        }
        try:
            if described.client_streaming:
                call: Any = self.channel.stream_stream(method, **codecs)(metadata=metadata, timeout=30)
                await call.write(message)
                await call.read()
            elif described.server_streaming:
                call = self.channel.unary_stream(method, **codecs)(message, metadata=metadata, timeout=30)
                await call.read()
                if call.done():
                    await _raise(call)
                call.cancel()
            else:
                await self.channel.unary_unary(method, **codecs)(message, metadata=metadata, timeout=30)
        except grpc.aio.AioRpcError as error:
            keys = [key for key, _ in error.trailing_metadata() or ()]
            return refusal(error), "grpc-status-details-bin" in keys
        return "OK", True


async def _raise(call: Any) -> None:
    """A stream that was refused before its first word."""
    if await call.code() is not grpc.StatusCode.OK:
        await call.read()


def _class_of(described: Any) -> Any:
    return getattr(MODULES[described.file.name], described.name)


async def _token(market: Running, name: str, scopes: tuple[str, ...] = (), lifetime_ms: int = 0) -> str:
    request = m.CreateTokenRequest(
        request_id=str(new_uuid()), account_name=name, scopes=scopes, lifetime_ms=lifetime_ms
    )
    token: str = (await market.operator.ask(market.operator.admin.CreateToken, request)).token
    return token


def _bare(token_metadata: Any) -> str:
    return str(token_metadata[0][1]).removeprefix("Bearer ")


async def _callers(market: Running, provider: IdentityProvider) -> AsyncIterator[Caller]:
    channel = market.channel
    buyer, seller, operator = (frozenset({role}) for role in (Role.BUYER, Role.SELLER, Role.OPERATOR))
    yield Caller(name="none", channel=channel, is_good=False)
    yield Caller(name="unknown", channel=channel, token="usance_tok_" + "x" * 32, is_good=False)
    expired = await _token(market, "buyer", lifetime_ms=60_000)
    market.clock.advance(60_000)
    yield Caller(name="expired", channel=channel, token=expired, is_good=False)
    revoked = await _token(market, "operator")
    tokens = await market.operator.ask(
        market.operator.tokens.ListTokens, b.ListTokensRequest(account_name="operator")
    )
    (token_id,) = [token.token_id for token in tokens.tokens if not token.current]
    revoke = b.RevokeTokenRequest(request_id=str(new_uuid()), token_id=token_id)
    await market.operator.ask(market.operator.tokens.RevokeToken, revoke)
    yield Caller(name="revoked", channel=channel, token=revoked, is_good=False)
    yield Caller(name="buyer", channel=channel, token=_bare(market.buyer.metadata), roles=buyer)
    yield Caller(name="seller", channel=channel, token=_bare(market.seller.metadata), roles=seller)
    yield Caller(name="operator", channel=channel, token=_bare(market.operator.metadata), roles=operator)
    async for caller in _people(market, provider, buyer):
        yield caller
    await market.account("all", t.ROLE_BUYER, t.ROLE_SELLER, t.ROLE_OPERATOR)
    everything = frozenset(Role)
    for narrow in ("jobs:read", "wallet:*", "hosts:write", "admin:read", "tokens:read"):
        scopes = frozenset(
            scope
            for scope in Scope
            if scope == narrow or (narrow.endswith("*") and scope.startswith(narrow[:-1]))
        )
        token = await _token(market, "all", (narrow,))
        yield Caller(name=narrow, channel=channel, token=token, roles=everything, scopes=scopes)


async def _people(
    market: Running, provider: IdentityProvider, buyer: frozenset[Role]
) -> AsyncIterator[Caller]:
    """Who signed in, and who comes from the operator's identity provider."""
    channel = market.channel
    secrets = await accept(market, await invitation(market, "buyer"))
    market.clock.advance(market.settings.access_token_minutes * 60_000)
    yield Caller(name="expired access", channel=channel, token=secrets.access_token, is_good=False)
    secrets = await refresh(market, secrets.refresh_token)
    yield Caller(name="access", channel=channel, token=secrets.access_token, roles=buyer)
    yield Caller(name="refresh", channel=channel, token=secrets.refresh_token, is_good=False)
    ended = await login(market, "buyer")
    revoke = g.RevokeSessionRequest(
        request_id=str(new_uuid()), account_name="buyer", session_id=ended.session_id
    )
    await market.operator.ask(market.operator.sessions.RevokeSession, revoke)
    yield Caller(name="revoked session", channel=channel, token=ended.access_token, is_good=False)
    now_s = market.clock.wall_ms() // 1_000
    claims: dict[str, Any] = {"iss": provider.issuer, "aud": AUDIENCE, "sub": "ann", "exp": now_s + 3_600}
    stranger = provider.token(**claims, scope="jobs:*")
    yield Caller(name="jwt, unbound", channel=channel, token=stranger, is_good=False)
    bind = g.BindSubjectRequest(request_id=str(new_uuid()), account_name="buyer", subject="ann")
    await market.operator.ask(market.operator.people.BindSubject, bind)
    jobs = frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE})
    yield Caller(name="jwt", channel=channel, token=stranger, roles=buyer, scopes=jobs)
    over = provider.token(**{**claims, "exp": now_s - 3_600})
    yield Caller(name="jwt, expired", channel=channel, token=over, is_good=False)
    other = provider.token(**{**claims, "aud": "another"})
    yield Caller(name="jwt, another's", channel=channel, token=other, is_good=False)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityProvider]:
    made = IdentityProvider(tmp_path_factory.mktemp("provider"))
    yield made
    made.stop()


@pytest.fixture
def template(template: Any, provider: IdentityProvider) -> Any:
    """Who tries every door with bad tokens would be slowed down."""
    return cheap(
        template,
        bad_tokens_burst=10_000,
        oidc_issuer=provider.issuer,
        oidc_audience=AUDIENCE,
        oidc_ca=str(provider.ca),
    )


def test_every_rpc_lets_in_whom_it_should_and_nobody_else(play: Play, provider: IdentityProvider) -> None:
    async def script(market: Running) -> None:
        wrong = []
        async for caller in _callers(market, provider):
            for method in sorted(METHODS):
                said = await caller.says(method)
                if said not in caller.expected(method):
                    wrong.append((caller.name, method, said))
        assert wrong == []

    play(script)


def test_a_host_on_its_own_port_opens_what_is_of_hosts_and_nothing_else(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        who = agent.identity
        async with open_channel(
            market.settings.hosts, who.authority_pem, who.key_pem, who.certificate_pem
        ) as channel:
            host, wrong = Caller(name="agent", channel=channel, is_good=False), []
            for method in sorted(METHODS):
                expected = ADMITTED if ACCESS[method].access is Access.HOST else host.expected(method)
                said = await host.says(method)
                if said not in expected:
                    wrong.append((method, said))
            assert wrong == []

    play(script)


def test_what_is_anothers_does_not_exist(play: Play) -> None:
    """The same answer, to the letter, as for what was never there."""

    async def script(market: Running) -> None:
        job = await market.buyer.submit()
        agent = await market.agent()
        other_buyer = await market.account("other-buyer", t.ROLE_BUYER, deposit_micro=1_000_000)
        other_seller = await market.account("other-seller", t.ROLE_SELLER)
        never = {job.job_id: "job_never", agent.host_id: "host_never"}
        asked: list[tuple[Person, str, str, dict[str, Any]]] = [
            (other_buyer, "Market", "GetJob", {"job_id": job.job_id}),
            (other_buyer, "Market", "WatchJob", {"job_id": job.job_id}),
            (other_buyer, "Market", "ReadLogs", {"job_id": job.job_id}),
            (other_buyer, "Market", "GetBill", {"job_id": job.job_id}),
            (other_buyer, "Market", "CancelJob", {"job_id": job.job_id}),
            (other_buyer, "Market", "ExtendJob", {"job_id": job.job_id, "budget_micro_more": 1}),
            (other_seller, "Seller", "PauseHost", {"host_id": agent.host_id}),
            (other_seller, "Seller", "ResumeHost", {"host_id": agent.host_id}),
            (other_seller, "Seller", "ReclaimHost", {"host_id": agent.host_id}),
        ]
        for person, service, rpc, fields in asked:
            caller = Caller(name=rpc, channel=market.channel, token=_bare(person.metadata))
            method = f"/usance.v1.{service}Service/{rpc}"
            kind = _class_of(METHODS[method].input_type)
            if "request_id" in kind.DESCRIPTOR.fields_by_name:
                fields["request_id"] = str(new_uuid())
            said = await caller.says(method, kind(**fields))
            names = {name: never.get(str(value), value) for name, value in fields.items()}
            if "request_id" in names:
                names["request_id"] = str(new_uuid())
            assert (said, await caller.says(method, kind(**names))) == ("NOT_FOUND", "NOT_FOUND"), rpc
        # Its list shows nothing of anybody else's either.
        listed = await other_seller.ask(other_seller.sells.ListHosts, m.ListHostsRequest())
        assert list(listed.hosts) == []
        jobs = await other_buyer.ask(other_buyer.market.ListJobs, m.ListJobsRequest())
        assert list(jobs.jobs) == []
        tokens = b.ListTokensRequest(account_name="buyer")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await other_buyer.ask(other_buyer.tokens.ListTokens, tokens)
        assert refusal(caught.value) == "FORBIDDEN"
        # A narrow token can't make a wide one.
        narrow = Caller(
            name="narrow",
            channel=market.channel,
            token=await _token(market, "buyer", ("tokens:write", "jobs:read")),
        )
        create = "/usance.v1.TokenService/CreateOwnToken"
        wide = b.CreateOwnTokenRequest(request_id=str(new_uuid()), scopes=["jobs:write"])
        assert await narrow.says(create, wide) == "FORBIDDEN"
        nonsense = b.CreateOwnTokenRequest(request_id=str(new_uuid()), scopes=["jobs:all"])
        assert await narrow.says(create, nonsense) == "INVALID_FIELD"
        as_narrow = b.CreateOwnTokenRequest(request_id=str(new_uuid()), scopes=["jobs:read"])
        assert await narrow.says(create, as_narrow) == "OK"
        submit = m.SubmitJobRequest(request_id=str(new_uuid()), spec=job_spec())
        assert await narrow.says("/usance.v1.MarketService/SubmitJob", submit) == "FORBIDDEN"

    play(script)
