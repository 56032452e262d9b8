"""One hostile agent tries every lie after the other, on both databases, and earns nothing."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest

from runtime.evidence import GpuUse, UsageRecord
from runtime.ids import new_uuid
from tests.integration.test_coordinator_claims import names, told
from tests.integration.test_coordinator_lies import BEAT_LIES, USAGE_LIES, extra, stopped
from tests.support.running_coordinator import WINDOW_MS, Running, eventually
from tests.support.scripted_agent import Run, ScriptedAgent
from tests.support.scripts import Play, goes_on, kinds, started
from usance.v1 import host_pb2 as h
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

TERABYTE = 1 << 40


def uses(run: Run, **figures: int) -> UsageRecord:
    return extra(run, 15_000, gpus=(GpuUse(gpu_uuid=run.wanted.gpu_uuids[0], **figures),))


def twice_the_same_gpu(run: Run) -> UsageRecord:
    use = GpuUse(gpu_uuid=run.wanted.gpu_uuids[0], utilization_percent=50)
    return extra(run, 15_000, gpus=(use, use))


MORE_USAGE_LIES: dict[str, Callable[[Run], UsageRecord]] = {
    **USAGE_LIES,
    "more memory than the card has": lambda run: uses(run, memory_used_bytes=TERABYTE),
    "more energy than a power station gives": lambda run: uses(run, energy_mj=10**15),
    "less than no energy": lambda run: uses(run, energy_mj=-1),
    "one GPU twice": twice_the_same_gpu,
}
Tell = Callable[[Running, ScriptedAgent, Run], Awaitable[None]]


async def foreign_usage(market: Running, liar: ScriptedAgent, run: Run) -> None:
    await liar.claim(run.wanted.attempt_id, 1, extra_first(run))


def extra_first(run: Run) -> UsageRecord:
    """A first record of an attempt as anybody could make it who knows its name."""
    return Run(run.wanted).record(30_000)


async def foreign_beat(market: Running, liar: ScriptedAgent, run: Run) -> None:
    await liar.say(h.SynchronizeRequest(beat=h.Beat(number=9, attempts=[run.ended(exit_code=1)])))


async def foreign_output(market: Running, liar: ScriptedAgent, run: Run) -> None:
    chunk = t.LogChunk(offset=0, stream=t.LOG_STREAM_STDOUT, data=b"forged")
    report = h.LogReport(attempt_id=run.wanted.attempt_id, epoch=1, chunks=[chunk])
    await liar.say(h.SynchronizeRequest(logs=report))


async def foreign_epoch(market: Running, liar: ScriptedAgent, run: Run) -> None:
    await liar.claim(run.wanted.attempt_id, 7, extra_first(run))


ABOUT_OTHERS: dict[str, Tell] = {
    "usage": foreign_usage,
    "a beat": foreign_beat,
    "output": foreign_output,
    "another epoch": foreign_epoch,
}


async def has_told(market: Running, agent: ScriptedAgent, count: int) -> bool:
    return len(told(market, agent.host_id)) == count


async def trusted_again(market: Running, agent: ScriptedAgent) -> None:
    request = m.UnquarantineHostRequest(request_id=str(new_uuid()), host_id=agent.host_id)
    await market.operator.ask(market.operator.admin.UnquarantineHost, request)


async def refused(market: Running, agent: ScriptedAgent, tell: Tell) -> None:
    """One job, ten honest seconds, one lie: stopped, told to the buyer, and what was paid goes back."""
    before = len(told(market, agent.host_id))
    job, run = await started(market, agent)
    await goes_on(market, agent, run, 10_000, by_ms=10_000)
    await agent.usage(run, run.record(10_000))
    market.clock.advance(5_000)
    await tell(market, agent, run)
    await agent.until(lambda: stopped(agent, run) == t.END_REASON_CLAIM_REFUSED, "it is stopped")
    market.clock.advance(5_000)
    await agent.beat(run.runs(20_000))
    await agent.usage(run, run.record(20_000))
    await agent.beat(run.ended())
    ended = await market.buyer.ended(job.job_id)
    assert (ended.state, ended.cause) == (t.JOB_STATE_FAILED, t.CAUSE_HOST)
    assert (await market.buyer.bill(job.job_id)).credited_micro == ended.charged_micro == 10_000
    assert kinds(await market.buyer.events(job.job_id)).count("REFUSED_CLAIM") == 1
    assert len(told(market, agent.host_id)) == before + 1, "one event for the host's seller, too"
    await trusted_again(market, agent)


def usage_lie(make: Callable[[Run], UsageRecord]) -> Tell:
    async def tell(_market: Running, agent: ScriptedAgent, run: Run) -> None:
        assert (await agent.usage(run, make(run))).usage_number == 1

    return tell


def beat_lie(make: Callable[[Run], h.AttemptReport]) -> Tell:
    async def tell(_market: Running, agent: ScriptedAgent, run: Run) -> None:
        await agent.beat(make(run))

    return tell


def test_no_lie_earns_a_micro_credit(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        market.seller = await market.account("liar", t.ROLE_SELLER)
        agent = await market.agent()
        for make in MORE_USAGE_LIES.values():
            await refused(market, agent, usage_lie(make))
        for lie in BEAT_LIES.values():
            await refused(market, agent, beat_lie(lie))
        assert (await market.seller.wallet()).earnings_micro == 0
        assert (await market.buyer.wallet()).wallet_micro == 10_000_000

    play_on_both(script)


def test_no_lie_about_others_earns_or_costs_a_micro_credit(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        honest = market.seller
        agents = [await market.agent() for _ in ABOUT_OTHERS]
        jobs = [await started(market, agent) for agent in agents]
        market.seller = await market.account("liar", t.ROLE_SELLER)
        liar = await market.agent()
        for number, (tell, (_, run)) in enumerate(zip(ABOUT_OTHERS.values(), jobs, strict=True), start=1):
            await tell(market, liar, run)
            await eventually(partial(has_told, market, liar, number), "it is told")
        await names(liar, agents[0].facts.gpus[0].uuid)
        await market.host_is(liar.host_id, t.HOST_STATE_QUARANTINED)
        market.clock.advance(10_000)
        for agent, (job, run) in zip(agents, jobs, strict=True):
            await agent.beat(run.runs(10_000))
            await agent.usage(run, run.record(10_000))
            await agent.beat(run.ended())
            ended = await market.buyer.ended(job.job_id)
            assert (ended.state, ended.charged_micro) == (t.JOB_STATE_SUCCEEDED, 10_000)
        assert (await market.seller.wallet()).earnings_micro == 0
        assert (await honest.wallet()).earnings_micro == len(jobs) * 9_500

    play_on_both(script)


def test_no_lie_about_the_past_changes_it(play_on_both: Play) -> None:
    """Records told otherwise a second time, usage and life after the end."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        for second in (10, 20):
            await goes_on(market, agent, run, second * 1_000, by_ms=10_000)
            await agent.usage(run, run.record(second * 1_000))
        longer = Run(run.wanted).record(15_000)
        assert (await agent.usage(run, longer)).usage_number == 2
        assert len(told(market, agent.host_id)) == 1
        await agent.usage(run, *run.records)
        assert len(told(market, agent.host_id)) == 1, "to say it again is no lie"
        await agent.beat(run.ended())
        assert (await market.buyer.ended(job.job_id)).charged_micro == 20_000
        market.clock.advance(10_000)
        await agent.beat(run.runs(30_000))
        await agent.claim(run.wanted.attempt_id, 1, replace(extra(run, 30_000)))
        await agent.beat()
        after = told(market, agent.host_id)
        assert len(after) == 2
        assert "alive" in after[1]
        assert (await market.buyer.job(job.job_id)).charged_micro == 20_000
        assert (await market.seller.wallet()).earnings_micro == 19_000

    play_on_both(script)


@pytest.mark.parametrize("limit", ["time", "money"])
def test_who_runs_and_says_that_no_time_passes_reaches_the_limits_all_the_same(
    play: Play, limit: str
) -> None:
    """By the coordinator's own clock; else the buyer's money would be held for ever."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        spec = {"run_ms_max": 30_000} if limit == "time" else {"budget_micro": 30_000}
        job, run = await started(market, agent, **spec)
        while not stopped(agent, run):
            await goes_on(market, agent, run, 0, by_ms=1_000)
        expected = t.END_REASON_TIME_LIMIT if limit == "time" else t.END_REASON_BUDGET_SPENT
        assert stopped(agent, run) == expected
        market.clock.advance(WINDOW_MS)
        await agent.beat(run.runs(0))
        market.clock.advance(WINDOW_MS + 20_000)
        await agent.beat(run.runs(0))

        async def over() -> bool:
            await agent.beat(run.runs(0))
            market.clock.advance(1_000)
            return (await market.buyer.job(job.job_id)).state == t.JOB_STATE_EXPIRED

        await eventually(over, "it is ended though its host goes on")
        assert (await market.buyer.wallet()).wallet_micro == 10_000_000

    play(script)


def test_a_job_that_cannot_pay_for_another_try_ends_and_lets_go_of_its_money(play: Play) -> None:
    """It was lost when its money was nearly gone: in the queue it would have waited for ever."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent, budget_micro=20_500, retries_max=3)
        for second in (10, 20):
            await goes_on(market, agent, run, second * 1_000, by_ms=10_000)
            await agent.usage(run, run.record(second * 1_000))
        await agent.beat(run.ended(None, t.END_REASON_GPU_LOST))
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.cause) == (t.JOB_STATE_FAILED, t.CAUSE_HOST)
        assert "would not pay for another try" in ended.detail
        assert (await market.buyer.wallet()).held_micro == 0
        assert (await market.buyer.wallet()).wallet_micro == 10_000_000

    play(script)
