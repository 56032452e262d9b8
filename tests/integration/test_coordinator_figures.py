"""What a Prometheus reads of a real coordinator: cheap to read, and nothing in it that strangers chose."""

import asyncio
import urllib.request
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event

from coordinator import passes
from runtime.ids import new_uuid
from tests.integration.test_agent_metrics import gathered
from tests.support.running_coordinator import Running, eventually
from tests.support.scripts import Play, goes_on, started
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

EVIL = 'evil"} 1 usance_evil{a="b'
# Of these there is a first time; each value is one of ours.
GROWS = {"usance_rpcs_total", "usance_rpc_duration_seconds", "usance_rpc_streams", "usance_set_aside_total"}


def page_of(market: Running) -> str:
    with urllib.request.urlopen(f"http://{market.settings.metrics}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


async def read(market: Running) -> str:
    return await asyncio.to_thread(page_of, market)


def series(text: str) -> set[str]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}"
        for family in text_string_to_metric_families(text)
        if family.name not in {name.removesuffix("_total") for name in GROWS}
        for sample in family.samples
    }


async def surveyed(market: Running, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def look() -> bool:
        nonlocal found
        market.clock.advance(5_000)
        found = gathered(await read(market))
        return holds(found)

    await eventually(look, what)
    return found


def one(figures: dict[str, Any], name: str, **labels: str) -> float:
    (value,) = [value for given, value in figures[f"usance_{name}"] if given == labels]
    return float(value)


def test_a_market_is_in_its_figures(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        _, run = await started(market, agent)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        await agent.usage(run, run.record(10_000))
        await market.buyer.submit(budget_micro=500_000)
        # After so long a beat that brings no news is read.
        market.clock.advance(16_000)
        await agent.beat(run.runs(26_000))
        figures = await surveyed(
            market, lambda found: one(found, "settlement_lag_seconds") == 16, "it is seen"
        )
        assert one(figures, "jobs", state="queued") == 1
        assert one(figures, "jobs", state="running") == 1
        assert one(figures, "queue_age_seconds") >= 16
        assert one(figures, "gpus", state="sold") == 1
        assert sum(value for _, value in figures["usance_hosts"]) == 1
        assert one(figures, "jobs_submitted_total") == 2
        assert one(figures, "credits_moved_total", kind="deposit") == 10
        assert one(figures, "credits_moved_total", kind="hold") == 1.5
        assert one(figures, "gpu_billed_seconds_total") == 10
        assert one(figures, "database_size_bytes") > 0
        assert one(figures, "disk_free_bytes") > 0
        assert one(figures, "agents_connected") == 1
        assert one(figures, "backup_timestamp_seconds") == 0
        ends_s = one(figures, "certificate_expiry_timestamp_seconds", certificate="server")
        assert 390 < (ends_s - market.clock.wall_ms() / 1_000) / 86_400 < 398
        assert one(figures, "rpcs_total", method="/usance.v1.MarketService/SubmitJob", code="OK") == 2

    play_on_both(script)


def test_strangers_make_no_series(play: Play) -> None:
    async def script(market: Running) -> None:
        await (await market.agent()).beat()
        await market.buyer.submit()
        before = series(await surveyed_page(market))
        agent = await market.agent(executor=EVIL, driver_version="evil", region="evil", labels={"evil": EVIL})
        await agent.beat()
        await market.buyer.submit(name="evil", labels={"evil": EVIL}, note=EVIL, image="evil:evil")
        stranger = await market.account("evil", t.ROLE_BUYER, deposit_micro=1_000_000)
        await stranger.submit(name="evil")
        request = m.CancelJobRequest(request_id=str(new_uuid()), job_id="evil")
        call = stranger.market.CancelJob(request, metadata=stranger.metadata)
        assert (await asyncio.gather(call, return_exceptions=True))[0]
        unknown: Any = market.channel.unary_unary("/usance.v1.Evil/Evil")
        assert (await asyncio.gather(unknown(b""), return_exceptions=True))[0]
        text = await surveyed_page(market)
        assert series(text) == before
        assert "evil" not in text.lower()

    play(script)


async def surveyed_page(market: Running) -> str:
    """After the survey that follows."""
    before = gathered(await read(market))

    async def look() -> bool:
        market.clock.advance(5_000)
        return one(gathered(await read(market)), "survey_timestamp_seconds") > one(
            before, "survey_timestamp_seconds"
        )

    await eventually(look, "the survey is done")
    return await read(market)


def test_to_read_them_asks_the_database_nothing(play: Play, monkeypatch) -> None:
    # What looks at the queue by the real clock looks once.
    monkeypatch.setattr(passes, "PASS_EVERY_MS", 3_600_000)

    async def script(market: Running) -> None:
        assert market.database is not None
        asked: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            asked.append(statement)

        engine = market.database._engine
        event.listen(engine, "before_cursor_execute", note)
        try:
            # The clock stands still, so nobody else asks.
            await surveyed_page(market)
            asked.clear()
            for _ in range(5):
                await read(market)
        finally:
            event.remove(engine, "before_cursor_execute", note)
        assert asked == []

    play(script)
