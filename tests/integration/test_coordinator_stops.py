"""A coordinator that is stopped: what was begun is committed, and who waits is told to come again."""

import asyncio

import grpc.aio
import pytest

from runtime.ids import new_uuid
from tests.support.running_coordinator import Running
from tests.support.scripts import Play, refusal
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t


def test_who_watches_is_told_to_come_again(play: Play) -> None:
    async def script(market: Running) -> None:
        job = await market.buyer.submit()
        request = m.WatchJobRequest(job_id=job.job_id)
        watch = market.buyer.stream(market.buyer.market.WatchJob, request)
        assert (await watch.read()).event.kind == m.EVENT_KIND_SUBMITTED
        logs = market.buyer.stream(
            market.buyer.market.ReadLogs, m.ReadLogsRequest(job_id=job.job_id, follow=True)
        )
        reading = asyncio.create_task(logs.read())
        await market.halt()
        for call in (watch.read(), reading):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert (caught.value.code(), refusal(caught.value)) == (
                grpc.StatusCode.UNAVAILABLE,
                "UNAVAILABLE",
            )
        await market.serve()

    play(script)


def test_orders_in_flight_are_taken_in_or_not_and_never_twice(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        request_ids = [str(new_uuid()) for _ in range(40)]
        market.buyer.waits = False

        async def order(request_id: str) -> str:
            return (await market.buyer.submit(request_id=request_id, budget_micro=1_000)).job_id

        orders = [asyncio.create_task(order(request_id)) for request_id in request_ids]
        await asyncio.wait(orders, return_when=asyncio.FIRST_COMPLETED)
        await market.halt()
        outcomes = await asyncio.gather(*orders, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, grpc.aio.AioRpcError)
                assert outcome.code() is grpc.StatusCode.UNAVAILABLE
        await market.serve()
        again = [await order(request_id) for request_id in request_ids]
        answered = [
            (first, second) for first, second in zip(outcomes, again, strict=True) if isinstance(first, str)
        ]
        assert answered, "none was answered before the end"
        assert all(first == second for first, second in answered)
        page = await market.buyer.ask(market.buyer.market.ListJobs, m.ListJobsRequest(page_size=500))
        assert sorted(job.job_id for job in page.jobs) == sorted(again)
        assert {job.state for job in page.jobs} == {t.JOB_STATE_QUEUED}

    play_on_both(script)
