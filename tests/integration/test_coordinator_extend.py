"""A job is given more money and more time while it runs; the bill says so and is right."""

import grpc
import pytest

from cli.client.convert import bill_of
from cli.verify import verify_bill
from runtime.ids import new_uuid
from tests.support.running_coordinator import Running
from tests.support.scripts import Play, goes_on, kinds, refusal, started
from usance.v1 import host_pb2 as h
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t


async def extend(
    market: Running, job_id: str, *, request_id: str = "", budget_micro: int = 0, run_ms: int = 0
) -> m.Job:
    request = m.ExtendJobRequest(
        request_id=request_id or str(new_uuid()),
        job_id=job_id,
        budget_micro_more=budget_micro,
        run_ms_more=run_ms,
    )
    job: m.Job = (await market.buyer.ask(market.buyer.market.ExtendJob, request)).job
    return job


def test_what_is_given_once_is_held_once_and_lasts(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent, budget_micro=10_000, run_ms_max=10_000)
        request_id = str(new_uuid())
        for _ in range(2):
            now = await extend(market, job.job_id, request_id=request_id, budget_micro=15_000, run_ms=10_000)
            assert (now.spec.budget_micro, now.spec.run_ms_max) == (25_000, 20_000)
        assert (await market.buyer.wallet()).held_micro == 25_000
        await goes_on(market, agent, run, 19_000, by_ms=19_000)
        await agent.usage(run, run.record(19_000))
        await agent.beat(run.ended())
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.charged_micro) == (t.JOB_STATE_SUCCEEDED, 19_000)
        bill = await market.buyer.bill(job.job_id)
        assert (bill.held_micro, bill.released_micro) == (25_000, 6_000)
        assert [(a.run_ms_affordable, a.run_ms_max) for a in bill.attempts] == [(25_000, 20_000)]
        assert verify_bill(bill_of(bill)).problems == ()
        assert kinds(await market.buyer.events(job.job_id)).count("EXTENDED") == 1

    play_on_both(script)


def test_no_more_time_is_given_than_the_seller_lets_a_job_have(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        agent.terms.run_ms_max = 15_000
        await agent.hello()
        job, _ = await started(market, agent, budget_micro=10_000, run_ms_max=10_000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await extend(market, job.job_id, run_ms=5_001)
        assert refusal(caught.value) == "INVALID_FIELD"
        assert (await extend(market, job.job_id, run_ms=5_000)).spec.run_ms_max == 15_000
        # The seller's hours end; only the job itself goes on.
        agent.terms.run_ms_max = 0
        minute = (market.clock.wall_ms() // 60_000 + 3 * 1_440) % 10_080
        agent.terms.hours.append(h.SaleWindow(start_minute=(minute - 60) % 10_080, end_minute=minute))
        await agent.hello()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await extend(market, job.job_id, run_ms=1_000)
        assert refusal(caught.value) == "INVALID_FIELD"

    play(script)


def test_what_can_not_be_given_changes_nothing(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, _ = await started(market, agent, budget_micro=10_000, run_ms_max=10_000)
        for budget_micro, run_ms, code in (
            (10_000_000, 0, "INSUFFICIENT_FUNDS"),
            (-1, 0, "INVALID_FIELD"),
            (0, 2_592_000_000, "INVALID_FIELD"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await extend(market, job.job_id, budget_micro=budget_micro, run_ms=run_ms)
            assert refusal(caught.value) == code
        same = await market.buyer.job(job.job_id)
        assert (same.spec.budget_micro, same.spec.run_ms_max) == (10_000, 10_000)
        await market.buyer.cancel(job.job_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await extend(market, job.job_id, run_ms=1_000)
        assert refusal(caught.value) == "JOB_ENDED"

    play(script)
