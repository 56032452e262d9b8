"""Hosts' certificates: renewed under load, refused at once, followed by another authority's, and copied."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text

from agent.link import identity as identities
from agent.link.renewal import Papers
from coordinator import identity as authority
from coordinator import rotation
from coordinator.rotation import Step
from coordinator.settings import SettingsError
from ledger.engine import make_engine
from runtime.channel import open_channel
from runtime.ids import new_uuid
from tests.support.running_coordinator import Running, eventually
from tests.support.scripted_agent import Identity, ScriptedAgent, key_pem, signing_request
from tests.support.scripts import Play, refusal, started
from usance.v1 import books_pb2 as b
from usance.v1 import host_pb2 as h
from usance.v1 import host_pb2_grpc
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

DAY_MS = 86_400_000


async def refused(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal(caught.value)


def papers_of(market: Running, agent: ScriptedAgent, folder: Path) -> Papers:
    """As the agent program keeps them."""
    mine = agent.identity
    identity = identities.Identity(
        host_id=mine.host_id,
        hosts=market.settings.hosts,
        authority_pem=mine.authority_pem,
        certificate_pem=mine.certificate_pem,
        key_pem=mine.key_pem,
    )
    folder.mkdir(exist_ok=True)
    return Papers(folder, identity, market.clock)


def as_scripted(papers: Papers) -> Identity:
    now = papers.identity
    return Identity(
        host_id=now.host_id,
        key_pem=now.key_pem,
        certificate_pem=now.certificate_pem,
        authority_pem=now.authority_pem,
    )


async def closed(agent: ScriptedAgent) -> str:
    """Why its stream has ended."""

    async def look() -> bool:
        return agent.is_over

    await eventually(look, "the stream has ended")
    return refusal(agent.error)


async def no_entry(agent: ScriptedAgent) -> str:
    for _ in range(10):
        try:
            await agent.connect()
        except AssertionError:
            return refusal(agent.error)
        except grpc.aio.AioRpcError as error:
            # Refused while its hello was on the way: the client's own gRPC gives up on that, and may forget
            # to say why. An agent tries again, and so do we.
            if error.code() is not grpc.StatusCode.INTERNAL:
                raise
        finally:
            await agent._channel.close()
    raise AssertionError("was never told why")


async def revoke(market: Running, host_id: str) -> m.Host:
    request = m.RevokeHostRequest(request_id=str(new_uuid()), host_id=host_id, reason="stolen")
    answer = await market.operator.ask(market.operator.admin.RevokeHost, request)
    assert (await market.operator.ask(market.operator.admin.RevokeHost, request)) == answer
    host: m.Host = answer.host
    return host


def test_a_certificate_is_renewed_under_load_for_a_new_key(play: Play, tmp_path: Path) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        papers = papers_of(market, agent, tmp_path / "state")
        before = papers.identity
        renewing = asyncio.create_task(papers.renew())
        said = 0
        while not renewing.done():
            said += 1
            await agent.logs(run, run.writes(b"a line\n"))
            await agent.beat(run.runs(0))
        await renewing
        assert not agent.is_over
        assert papers.identity.key_pem != before.key_pem
        assert papers.identity.ends_ms - papers.identity.begins_ms <= 7 * DAY_MS + 1_000
        assert identities.load(tmp_path / "state") == papers.identity
        names = x509.load_pem_x509_certificate(papers.identity.certificate_pem).subject
        assert [name.value for name in names] == [agent.host_id]
        # The next connection uses it; the job never noticed.
        agent.identity = as_scripted(papers)
        await agent.leave()
        await agent.connect()
        await agent.logs(run, run.writes(b"and one more\n"))
        run.record(1)
        await agent.usage(run, *run.records)
        await agent.beat(run.ended())
        assert (await market.buyer.ended(job.job_id)).state == t.JOB_STATE_SUCCEEDED
        end = [
            item
            async for item in market.buyer.stream(
                market.buyer.market.ReadLogs, m.ReadLogsRequest(job_id=job.job_id)
            )
        ][-1].end
        assert (end.complete, end.offset) == (True, 7 * said + 13)

    play(script)


def test_an_agent_that_does_not_renew_is_certified_for_longer(play: Play) -> None:
    async def script(market: Running) -> None:
        csr = signing_request(ec.generate_private_key(ec.SECP256R1()))
        async with open_channel(market.settings.market, market.authority_pem) as channel:
            stub = host_pb2_grpc.EnrolmentServiceStub(channel)
            for renews, days in ((False, 90), (True, 7)):
                request = h.EnrollRequest(token_secret=await market.secret(), csr_pem=csr, renews=renews)
                answer = await stub.Enroll(request, timeout=30)
                good_ms = answer.expires_at_ms - market.clock.wall_ms()
                assert abs(good_ms - days * DAY_MS) <= 1_000

    play(script)


def test_a_certificate_that_has_expired_opens_nothing(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        await agent.leave()
        who = authority.load(market.settings.data_dir, market.clock.wall_ms())
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.load_pem_x509_csr(signing_request(key))
        long_ago_ms = market.clock.wall_ms() - 8 * DAY_MS
        old = who.issue_host(csr, agent.host_id, long_ago_ms, days=7).pem
        late = replace(agent.identity, key_pem=key_pem(key), certificate_pem=old)
        assert await shut_out(ScriptedAgent(market.settings.hosts, late))

    play(script)


async def shut_out(agent: ScriptedAgent) -> bool:
    """Already by the handshake."""
    who = agent.identity
    async with open_channel(agent.address, who.authority_pem, who.key_pem, who.certificate_pem) as channel:
        call: Any = host_pb2_grpc.HostServiceStub(channel).Synchronize(timeout=30)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_revoked_host_is_put_out_and_never_let_in_again(play_on_both: Play, tmp_path: Path) -> None:
    async def script(market: Running) -> None:
        secret = await market.secret()
        key = ec.generate_private_key(ec.SECP256R1())
        async with open_channel(market.settings.market, market.authority_pem) as channel:
            enrolment = host_pb2_grpc.EnrolmentServiceStub(channel)
            request = h.EnrollRequest(token_secret=secret, csr_pem=signing_request(key))
            unused = (await enrolment.Enroll(request, timeout=30)).host_id
            await revoke(market, unused)
            assert await refused(enrolment.Enroll(request, timeout=30)) == "ENROLMENT_REFUSED"
        agent = await market.agent()
        job, _ = await started(market, agent)
        papers = papers_of(market, agent, tmp_path / "state")
        host = await revoke(market, agent.host_id)
        assert (host.state, host.reason) == (t.HOST_STATE_QUARANTINED, "revoked: stolen")
        assert await closed(agent) == "UNAUTHENTICATED"
        assert await no_entry(agent) == "UNAUTHENTICATED"
        assert await refused(papers.renew()) == "UNAUTHENTICATED"
        lift = m.UnquarantineHostRequest(request_id=str(new_uuid()), host_id=agent.host_id)
        assert await refused(market.operator.ask(market.operator.admin.UnquarantineHost, lift)) == "FORBIDDEN"
        # Its job went at once.
        attempts = (await market.buyer.ended(job.job_id)).attempts
        assert [a.end_reason for a in attempts] == [t.END_REASON_HOST_LOST]
        never = m.RevokeHostRequest(request_id=str(new_uuid()), host_id="host_never", reason="x")
        assert await refused(market.operator.ask(market.operator.admin.RevokeHost, never)) == "NOT_FOUND"

    play_on_both(script)


def test_an_operator_can_revoke_in_the_database_alone(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        await agent.beat()
        engine = make_engine(market.settings.database_url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE host SET revoked_ms = 1"))
        engine.dispose()

        async def heard() -> bool:
            # What holds nothing is written down as heard once in a while.
            market.clock.advance(1_000)
            return agent.is_over

        assert await refused_in_time(agent, heard) == "UNAUTHENTICATED"
        assert await no_entry(agent) == "UNAUTHENTICATED"

    async def refused_in_time(agent: ScriptedAgent, heard: Any) -> str:
        await agent.say(h.SynchronizeRequest(beat=h.Beat(number=9)))
        await eventually(heard, "the stream has ended")
        return refusal(agent.error)

    play(script)


def test_one_authority_follows_another_without_a_host_being_locked_out(play: Play, tmp_path: Path) -> None:
    async def script(market: Running) -> None:
        agent, other = await market.agent(), await market.agent()
        papers = papers_of(market, agent, tmp_path / "state")
        with pytest.raises(SettingsError, match="no rotation has begun"):
            rotation.run(market.settings, Step.FINISH, market.clock, force=False)
        assert "authorities.pem" in rotation.run(market.settings, Step.BEGIN, market.clock, force=False)
        with pytest.raises(SettingsError, match="begun already"):
            rotation.run(market.settings, Step.BEGIN, market.clock, force=False)
        await restart(market)
        # Both are trusted; whoever renews is told so.
        await agent.connect()
        await other.connect()
        await papers.renew()
        assert papers.identity.authority_pem.count(b"BEGIN CERTIFICATE") == 2
        with pytest.raises(SettingsError, match=other.host_id) as behind:
            rotation.run(market.settings, Step.FINISH, market.clock, force=False)
        assert agent.host_id not in str(behind.value)
        rotation.run(market.settings, Step.FINISH, market.clock, force=True)
        market.authority_pem = (market.settings.data_dir / "ca.pem").read_bytes()
        assert not (market.settings.data_dir / "authorities.pem").exists()
        await restart(market, knows_both=papers.identity.authority_pem)
        agent.identity = as_scripted(papers)
        await agent.connect()
        # Who did not move is not let in, even if they know whom to ask.
        late = ScriptedAgent(
            market.settings.hosts, replace(other.identity, authority_pem=market.authority_pem)
        )
        assert await shut_out(late)

    async def restart(market: Running, knows_both: bytes = b"") -> None:
        for agent in market.agents:
            await agent.leave()
        await market.halt()
        if knows_both:
            await market.channel.close()
            market.channel = open_channel(market.settings.market, knows_both)
            token = (market.settings.data_dir / "operator.token").read_text().strip()
            market.operator = type(market.operator)(market.channel, token, "operator")
        await market.serve()

    play(script)


def test_an_identity_that_was_replaced_does_not_win_over_the_one_that_replaced_it(
    play: Play, tmp_path: Path
) -> None:
    """The newer connection wins only where it proves no less than the older."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        stolen = agent.identity
        papers = papers_of(market, agent, tmp_path / "state")
        market.clock.advance(5_000)
        await papers.renew()
        agent.identity = as_scripted(papers)
        await agent.leave()
        await agent.connect()
        assert await no_entry(ScriptedAgent(market.settings.hosts, stolen)) == "SUPERSEDED"
        assert await no_entry(ScriptedAgent(market.settings.hosts, stolen)) == "SUPERSEDED"
        await agent.beat()
        assert not agent.is_over
        # Its seller and the operator see it.
        (host,) = (await market.seller.ask(market.seller.sells.ListHosts, m.ListHostsRequest())).hosts
        assert host.notices == ["claims that were refused and count against it: 1"]
        listed = await market.operator.ask(market.operator.operations.ListAllHosts, b.ListAllHostsRequest())
        assert listed.hosts[0].host.notices == host.notices
        engine = make_engine(market.settings.database_url)
        with engine.connect() as connection:
            told = connection.execute(text("SELECT text FROM event WHERE kind = 'refused_claim'")).scalars()
            assert ["a second machine came with a certificate" in line for line in told] == [True]
        engine.dispose()
        # A machine that was set back to a backup is let in while nobody else is there.
        await agent.leave()
        again = ScriptedAgent(market.settings.hosts, stolen)
        market.agents.append(again)

        async def let_in() -> bool:
            try:
                await again.connect()
            except AssertionError:
                await again._channel.close()
            return not again.is_over

        await eventually(let_in, "it is let in")

    play(script)


def test_a_certificate_without_its_key_opens_nothing(play: Play) -> None:
    """It is no secret: whoever listens to a handshake of TLS 1.2 has it."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        other = key_pem(ec.generate_private_key(ec.SECP256R1()))
        assert await shut_out(ScriptedAgent(market.settings.hosts, replace(agent.identity, key_pem=other)))

    play(script)


def test_two_machines_with_one_identity_are_noticed(play: Play) -> None:
    async def script(market: Running) -> None:
        one = await market.agent()
        two = ScriptedAgent(market.settings.hosts, one.identity)
        two.instance = "run-2"
        market.agents.append(two)
        superseded = set()
        for newer, older in ((two, one), (one, two)) * 2:
            await newer.connect()
            superseded.add(await closed(older))
            await older._channel.close()
        assert superseded == {"SUPERSEDED"}
        await market.host_is(one.host_id, t.HOST_STATE_QUARANTINED)
        listed = await market.seller.ask(market.seller.sells.ListHosts, m.ListHostsRequest())
        assert "two machines take turns" in listed.hosts[0].reason

    play(script)
