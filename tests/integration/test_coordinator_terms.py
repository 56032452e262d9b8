"""What a seller lets a job have is in the offer, holds in matching, and is told to who can't have it."""

from collections.abc import Sequence
from typing import Any

from tests.support.running_coordinator import Running
from tests.support.scripts import Play
from usance.v1 import host_pb2 as h
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

WEEK_MINUTES = 10_080


async def offered(market: Running, **wanted: Any) -> Sequence[m.Offer]:
    answer = await market.buyer.ask(market.buyer.market.ListOffers, m.ListOffersRequest(**wanted))
    offers: Sequence[m.Offer] = answer.offers
    return offers


async def why(market: Running, job_id: str) -> tuple[list[str], str]:
    job = await market.buyer.job(job_id)
    return [limit.limit for limit in job.limits], job.cheapest_change


def minute_of_week(market: Running) -> int:
    return (market.clock.wall_ms() // 60_000 + 3 * 1_440) % WEEK_MINUTES


def test_what_the_seller_lets_a_job_have(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        agent.facts.download_bps = 900_000_000
        agent.terms.images_denied.append("team/bad")
        agent.terms.network_max = t.NETWORK_ALLOW_LIST
        agent.terms.network_destinations.append("example.org")
        await agent.hello()
        await agent.beat()
        (offer,) = await offered(market)
        assert (offer.download_bps, offer.HasField("upload_bps"), offer.network_measured) == (
            *(900_000_000, False),
            False,
        )
        assert (list(offer.images_denied), list(offer.network_destinations)) == (
            ["team/bad"],
            ["example.org"],
        )
        assert (offer.network_max, offer.closes_at_ms) == (t.NETWORK_ALLOW_LIST, 0)
        assert len(await offered(market, image="team/good", network_min=t.NETWORK_ALLOW_LIST)) == 1
        assert not await offered(market, image="team/bad:1")
        assert not await offered(market, network_min=t.NETWORK_INTERNET)

        bad = await market.buyer.submit(image="team/bad:1")
        assert await why(market, bad.job_id) == (["takes no image team/bad:1, by its seller's rule"], "")
        far = await market.buyer.submit(network=t.NETWORK_INTERNET)
        assert await why(market, far.job_id) == (
            ["lets no job reach the internet"],
            "do without the network (without --network and --reach)",
        )
        near = await market.buyer.submit(
            network=t.NETWORK_ALLOW_LIST, network_destinations=["example.org:443"]
        )
        run = await agent.taken()
        assert run.wanted.spec == (await market.buyer.job(near.job_id)).spec

    play(script)


def test_a_job_waits_for_the_hours_and_never_outlasts_them(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        now = minute_of_week(market)
        # From the next minute on, for an hour.
        agent.terms.hours.append(
            h.SaleWindow(start_minute=(now + 1) % WEEK_MINUTES, end_minute=(now + 61) % WEEK_MINUTES)
        )
        await agent.hello()
        await agent.beat()
        assert not await offered(market)
        long = await market.buyer.submit(run_ms_max=2 * 3_600_000)
        short = await market.buyer.submit(run_ms_max=1_800_000)
        limits, change = await why(market, short.job_id)
        assert limits == ["closes, by its seller's hours, before a job of 30m is over"]
        assert not change
        for _ in range(31):
            market.clock.advance(2_000)
            await agent.beat()
        run = await agent.taken()
        assert run.wanted.spec.run_ms_max == 1_800_000
        assert (await market.buyer.job(long.job_id)).state == t.JOB_STATE_QUEUED

    play(script)


def test_who_names_a_model_gets_no_pretended_one(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        agent.facts.gpus[0].simulated = True
        await agent.hello()
        await agent.beat()
        assert len(await offered(market)) == 1
        assert not await offered(market, gpus=t.GpuRequest(model="4090"))
        assert len(await offered(market, gpus=t.GpuRequest(model="4090", simulated=True))) == 1
        job = await market.buyer.submit(gpus=t.GpuRequest(count=1, model="rtx4090"))
        assert await why(market, job.job_id) == (
            ["has GPUs of that name that are only simulated"],
            "accept simulated GPUs, which do not exist (--simulated)",
        )
        await market.buyer.submit(gpus=t.GpuRequest(count=1, model="rtx4090", simulated=True))
        await agent.taken()

    play(script)
