"""The agent keeps its certificate good by itself, and lives with a coordinator that knows nothing of it."""

import asyncio
from dataclasses import replace
from pathlib import Path

from agent.domain.certificate import HOUR_MS
from agent.domain.token import parse
from agent.link.enroll import enroll
from agent.link.identity import load
from agent.link.renewal import Papers
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.running_coordinator import MovedClock, eventually

DAY_MS = 24 * HOUR_MS


def test_a_certificate_is_renewed_in_time_and_tried_again_where_that_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        coordinator, clock = FakeCoordinator(), MovedClock()
        coordinator.is_old = True
        await coordinator.start()
        enrolled = await enroll(tmp_path, parse(coordinator.token))
        now_ms = clock.wall_ms()
        before = replace(enrolled, begins_ms=now_ms, ends_ms=now_ms + 7 * DAY_MS)
        papers = Papers(tmp_path, before, clock)
        keeping = asyncio.create_task(papers.keep_good())

        async def tried() -> bool:
            clock.advance(HOUR_MS)
            return coordinator.renewals > 0

        async def renewed() -> bool:
            clock.advance(HOUR_MS)
            return papers.identity is not before

        try:
            await eventually(tried, "it has tried to renew")
            assert clock.wall_ms() - now_ms >= 7 * DAY_MS // 2
            assert papers.identity is before
            coordinator.is_old = False
            coordinator.renewed_until_ms = clock.wall_ms() + 365 * DAY_MS
            await eventually(renewed, "it has renewed")
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await coordinator.stop()
        assert papers.identity.key_pem != before.key_pem
        assert load(tmp_path) == papers.identity

    asyncio.run(scenario())
