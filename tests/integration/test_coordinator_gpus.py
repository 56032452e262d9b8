"""What the coordinator does with what agents say of their GPUs: health decides, figures are shown."""

import asyncio

import pytest

from tests.support.running_coordinator import Running, eventually
from tests.support.scripted_agent import ScriptedAgent
from tests.support.scripts import Play, started
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

SICK = (t.GPU_HEALTH_DEGRADED, t.GPU_HEALTH_LOST, t.GpuHealth.ValueType(99))


async def seen(market: Running, host_id: str) -> m.Host:
    answer = await market.seller.ask(market.seller.sells.ListHosts, m.ListHostsRequest())
    (found,) = [host for host in answer.hosts if host.host_id == host_id]
    assert isinstance(found, m.Host)
    return found


async def free(market: Running) -> int:
    answer = await market.buyer.ask(market.buyer.market.ListOffers, m.ListOffersRequest())
    return sum(offer.gpu_count_free for offer in answer.offers)


async def say_health(agent: ScriptedAgent, health: t.GpuHealth.ValueType, reason: str = "") -> None:
    """Hello again, as an agent does when a GPU's health changes."""
    for gpu in agent.facts.gpus:
        gpu.health, gpu.health_reason = health, reason
    await agent.hello()


@pytest.mark.parametrize("health", SICK)
def test_no_job_is_placed_on_a_gpu_that_is_not_healthy(play_on_both: Play, health) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        assert await free(market) == 1
        await say_health(agent, health, "XID 79, it has fallen off the bus")

        async def gone() -> bool:
            return await free(market) == 0

        await eventually(gone, "the GPU is no longer offered")
        host = await seen(market, agent.host_id)
        assert [gpu.health for gpu in host.gpus] == [
            health if health in t.GpuHealth.values() else t.GPU_HEALTH_DEGRADED
        ]
        assert host.gpus[0].health_reason == "XID 79, it has fallen off the bus"
        assert (host.state, list(host.offers)) == (t.HOST_STATE_ONLINE, [])
        job = await market.buyer.submit()
        assert (await market.buyer.job(job.job_id)).state == t.JOB_STATE_QUEUED
        await agent.beat()
        assert agent.desired is not None
        assert list(agent.desired.attempts) == []
        await say_health(agent, t.GPU_HEALTH_HEALTHY)
        run = await agent.taken()
        await agent.beat(run.ended(reason=t.END_REASON_GPU_LOST, exit_code=None, detail="GPU lost"))
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.cause) == (t.JOB_STATE_FAILED, t.CAUSE_HOST)

    play_on_both(script)


def test_a_gpu_that_is_lost_while_a_job_has_it_is_not_given_to_the_next(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await say_health(agent, t.GPU_HEALTH_LOST, "the driver has lost it")
        await agent.beat(run.ended(reason=t.END_REASON_GPU_LOST, exit_code=None, detail="GPU lost"))

        async def ended() -> bool:
            return (await market.buyer.job(job.job_id)).attempts[0].state == t.ATTEMPT_STATE_ENDED

        await eventually(ended, "the attempt has ended")
        attempt = (await market.buyer.job(job.job_id)).attempts[0]
        assert (attempt.end_reason, attempt.cause) == (t.END_REASON_GPU_LOST, t.CAUSE_HOST)
        second = await market.buyer.submit()
        await agent.beat()
        assert (await market.buyer.job(second.job_id)).state == t.JOB_STATE_QUEUED
        assert await free(market) == 0
        await market.buyer.cancel(second.job_id)

    play(script)


def test_how_a_job_goes_is_shown_while_it_runs(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        own = agent.facts.gpus[0].uuid
        figures = t.JobFigures(
            cpu_milli=1_500,
            memory_bytes=1 << 30,
            gpus=[
                t.GpuFigures(gpu_uuid=own, utilization_percent=97, power_mw=333_000, temperature_c=71),
                t.GpuFigures(gpu_uuid="GPU-of-another-job", utilization_percent=1),
            ],
        )
        assert not (await market.buyer.job(job.job_id)).attempts[0].HasField("figures")
        await agent.beat(run.runs(1_000, figures=figures))
        shown = (await market.buyer.job(job.job_id)).attempts[0]
        assert (shown.figures.cpu_milli, shown.figures.memory_bytes) == (1_500, 1 << 30)
        assert [gpu.gpu_uuid for gpu in shown.figures.gpus] == [own]
        assert shown.figures.gpus[0].power_mw == 333_000
        assert not shown.figures.gpus[0].HasField("memory_used_bytes")
        assert shown.figures_at_ms == market.clock.wall_ms()
        # Another host's word about it is nobody's business.
        other = await market.agent()
        lie = run.runs(1_000, figures=t.JobFigures(cpu_milli=7))
        await other.beat(lie)
        assert (await market.buyer.job(job.job_id)).attempts[0].figures.cpu_milli == 1_500
        await agent.leave()

        async def forgotten() -> bool:
            return not (await market.buyer.job(job.job_id)).attempts[0].HasField("figures")

        await eventually(forgotten, "nothing is shown of a host that is not connected")
        await market.buyer.cancel(job.job_id)

    play(script)


@pytest.mark.parametrize(
    "figures",
    [
        t.JobFigures(cpu_milli=-1),
        t.JobFigures(gpus=[t.GpuFigures(gpu_uuid="")]),
        t.JobFigures(gpus=[t.GpuFigures(gpu_uuid="g", utilization_percent=101)]),
        t.JobFigures(gpus=[t.GpuFigures(gpu_uuid="g")] * 65),
    ],
)
def test_figures_that_can_not_be_end_the_stream(play: Play, figures) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        with pytest.raises(AssertionError, match="INVALID_ARGUMENT"):
            await agent.beat(run.runs(1_000, figures=figures))
        await asyncio.wait_for(agent.over(), 10)
        await market.buyer.cancel(job.job_id)

    play(script)
