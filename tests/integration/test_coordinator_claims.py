"""GPUs and attempts of other hosts, and runs after their end: refused, told and counted."""

import grpc.aio
import pytest

from coordinator.domain.claim import DAY_MS, OWNER_MS, STRIKES_BEFORE_QUARANTINE
from runtime.ids import new_uuid
from tests.support.running_coordinator import WINDOW_MS, Running, eventually
from tests.support.scripted_agent import ScriptedAgent
from tests.support.scripts import Play, goes_on, refusal, started
from usance.v1 import books_pb2 as b
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t


def told(market: Running, host_id: str) -> list[str]:
    """What a host's events say of its claims."""
    database = market.database
    assert database is not None
    query = "SELECT text FROM event WHERE host_id = :host AND kind = 'refused_claim' ORDER BY number"

    def look(tx) -> list[str]:
        from sqlalchemy import text

        return list(tx.connection.execute(text(query), {"host": host_id}).scalars())

    return database.read(look).result()


async def gpus_given(agent: ScriptedAgent) -> list[str]:
    assert agent.desired is not None
    return [uuid for order in agent.desired.attempts for uuid in order.gpu_uuids]


async def names(agent: ScriptedAgent, *gpu_uuids: str) -> None:
    """It says hello again, with these GPUs."""
    model = agent.facts.gpus[0]
    del agent.facts.gpus[1:]
    gpus = [t.Gpu(uuid=uuid, model=model.model, vram_bytes=model.vram_bytes) for uuid in gpu_uuids]
    agent.facts.ClearField("gpus")
    agent.facts.gpus.extend(gpus)
    await agent.hello()
    await agent.beat()


async def lost(market: Running, agent: ScriptedAgent) -> None:
    await agent.leave()
    market.clock.advance(WINDOW_MS + 1_000)
    await market.host_is(agent.host_id, t.HOST_STATE_LOST)


def test_a_gpu_of_another_host_is_refused_told_to_both_and_never_sold(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        (uuid,) = (gpu.uuid for gpu in agent.facts.gpus)
        neighbour = await market.account("neighbour", t.ROLE_SELLER)
        market.seller, own = neighbour, market.seller
        liar = await market.agent()
        market.seller = own
        await names(liar, uuid, "GPU-of-the-liar")
        await names(liar, uuid, "GPU-of-the-liar")
        mine, theirs = told(market, agent.host_id), told(market, liar.host_id)
        assert mine == [f"another host claims GPU {uuid}; it was refused"]
        assert theirs[0] == f"GPU {uuid} belongs to another host and is not sold from here"
        assert theirs[1].startswith("it claimed a GPU that belongs to another host")
        assert len(theirs) == 2, "told once, however often it is said"
        jobs = [await market.buyer.submit() for _ in range(3)]

        async def placed() -> bool:
            return len(await gpus_given(agent)) + len(await gpus_given(liar)) == 2

        await eventually(placed, "two are placed")
        assert await gpus_given(agent) == [uuid]
        assert await gpus_given(liar) == ["GPU-of-the-liar"]
        for job in jobs:
            await market.buyer.cancel(job.job_id)

    play(script)


def test_a_seller_moves_a_card_from_a_lost_machine_to_another_of_theirs(play: Play) -> None:
    async def script(market: Running) -> None:
        old = await market.agent()
        (uuid,) = (gpu.uuid for gpu in old.facts.gpus)
        new = await market.agent()
        await names(new, uuid)
        await lost(market, old)
        await new.beat()
        job = await market.buyer.submit()
        run = await new.taken()
        assert list(run.wanted.gpu_uuids) == [uuid]
        assert "it claimed a GPU" not in " ".join(told(market, new.host_id)), "it is their own card"
        await market.buyer.cancel(job.job_id)

    play(script)


def test_a_card_that_its_host_names_no_more_is_free_for_its_seller_at_once(play: Play) -> None:
    async def script(market: Running) -> None:
        old, new = await market.agent(gpu_count=2), await market.agent()
        kept, moved = (gpu.uuid for gpu in old.facts.gpus)
        await names(old, kept)
        await names(new, moved)
        assert f"GPU {moved} belongs to this host now" in " ".join(told(market, new.host_id))

    play(script)


def test_a_stranger_has_a_card_only_when_its_host_was_gone_for_a_week(play: Play) -> None:
    async def script(market: Running) -> None:
        old = await market.agent()
        (uuid,) = (gpu.uuid for gpu in old.facts.gpus)
        own, market.seller = market.seller, await market.account("stranger", t.ROLE_SELLER)
        new = await market.agent()
        await names(new, uuid)
        market.seller = own
        await lost(market, old)
        market.clock.advance(OWNER_MS - DAY_MS)
        await new.beat()
        assert f"GPU {uuid} belongs to this host now" not in " ".join(told(market, new.host_id))
        market.clock.advance(2 * DAY_MS)
        await new.beat()

        async def moved() -> bool:
            market.clock.advance(1_000)
            return f"GPU {uuid} belongs to this host now" in " ".join(told(market, new.host_id))

        await eventually(moved, "it is the new host's")

    play(script)


def test_claims_about_others_attempts_count_and_enough_of_them_quarantine(play: Play) -> None:
    async def script(market: Running) -> None:
        agents = [await market.agent() for _ in range(STRIKES_BEFORE_QUARANTINE)]
        begun = [await started(market, agent) for agent in agents]
        liar = await market.agent()
        for number, (_, run) in enumerate(begun, start=1):
            await liar.claim(run.wanted.attempt_id, 1, run.record(1_000))
            run.records.clear()
            await liar.beat(run.runs(1_000))
            await liar.beat(run.ended())
            assert len(told(market, liar.host_id)) == number, "once for each attempt"
        await market.host_is(liar.host_id, t.HOST_STATE_QUARANTINED)
        request = m.UnquarantineHostRequest(request_id=str(new_uuid()), host_id=liar.host_id)
        await market.operator.ask(market.operator.admin.UnquarantineHost, request)
        await market.host_is(liar.host_id, t.HOST_STATE_ONLINE)
        for (job, run), agent in zip(begun, agents, strict=True):
            await agent.beat(run.ended())
            assert (await market.buyer.ended(job.job_id)).charged_micro == 0
        assert (await market.seller.wallet()).earnings_micro == 0

    play(script)


def test_an_attempt_that_nobody_knows_is_told_and_held_against_nobody(play: Play) -> None:
    """Our database may have been restored from before it."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await agent.beat(run.runs(0), *(run.runs(0, attempt_id=f"att_{number}") for number in range(9)))
        assert len(told(market, agent.host_id)) == 9
        await market.host_is(agent.host_id, t.HOST_STATE_ONLINE)
        await goes_on(market, agent, run, 1_000, by_ms=1_000)
        await agent.usage(run, run.record(1_000))
        await agent.beat(run.ended())
        assert (await market.buyer.ended(job.job_id)).charged_micro == 1_000

    play(script)


def test_a_run_alive_after_its_end_counts(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await agent.beat(run.ended())
        await market.buyer.ended(job.job_id)
        await agent.beat(run.runs(5_000))
        (said,) = told(market, agent.host_id)
        assert said.startswith("it claimed a run to be alive whose end it had told")

    play(script)


def test_the_operator_sees_who_claims_what_and_gives_it_to_whom_it_belongs(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        (uuid,) = (gpu.uuid for gpu in agent.facts.gpus)
        own, market.seller = market.seller, await market.account("neighbour", t.ROLE_SELLER)
        other = await market.agent()
        await names(other, uuid)
        operator = market.operator
        (claim,) = (await operator.ask(operator.operations.ListGpuClaims, b.ListGpuClaimsRequest())).claims
        assert (claim.gpu_uuid, claim.host_id, claim.owner_host_id) == (uuid, other.host_id, agent.host_id)
        assert not claim.same_seller
        (mine,) = (await own.ask(own.sells.ListHosts, m.ListHostsRequest())).hosts
        (theirs,) = (await market.seller.ask(market.seller.sells.ListHosts, m.ListHostsRequest())).hosts
        assert list(mine.notices) == [f"another host claims GPU {uuid}; refused"]
        assert theirs.notices[1] == f"GPU {uuid} belongs to another host; not sold from here"
        assert theirs.notices[0] == "claims that were refused and count against it: 1"
        shown = (await operator.ask(operator.operations.ListAllHosts, b.ListAllHostsRequest())).hosts
        assert {len(owned.host.notices) for owned in shown} == {1, 2}

        async def release(**changes: str) -> b.ReleaseGpuResponse:
            plain = {"request_id": str(new_uuid()), "gpu_uuid": uuid, "reason": "it was sold"}
            request = b.ReleaseGpuRequest(**{**plain, **changes})
            answer: b.ReleaseGpuResponse = await operator.ask(operator.operations.ReleaseGpu, request)
            return answer

        job, run = await started(market, agent)
        with pytest.raises(grpc.aio.AioRpcError) as in_use:
            await release()
        assert refusal(in_use.value) == "FORBIDDEN"
        await agent.beat(run.ended())
        await market.buyer.ended(job.job_id)
        request_id = str(new_uuid())
        assert [(await release(request_id=request_id)).host_id for _ in range(2)] == [other.host_id] * 2
        await market.buyer.submit()
        assert list((await other.taken()).wanted.gpu_uuids) == [uuid]
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await release(gpu_uuid="GPU-of-nobody")
        assert refusal(unknown.value) == "NOT_FOUND"

    play_on_both(script)
