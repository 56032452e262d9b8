"""A few hundred requests that nobody would send; `make fuzz` sends a hundred thousand."""

import asyncio
from pathlib import Path

import pytest

from coordinator.api.access import ACCESS
from tests.fuzz.attack import METHODS, Found, attack
from tests.support.running_coordinator import prepare, running
from tests.support.signing_in import cheap


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    settings = cheap(prepare(folder / "data"), account_streams_max=1_000)

    async def whole() -> Found:
        async with running(settings) as market:
            return await attack(market, 1, 400)

    return asyncio.run(whole())


def test_whatever_is_sent_is_answered_and_never_breaks_us(found: Found) -> None:
    assert found.requests >= 400
    assert found.broken == []
    # It got past the door: what is right in all but one place is looked at.
    assert {"OK", "INVALID_FIELD", "NOT_FOUND"} <= set(found.answers)


def test_no_handler_is_left_behind(found: Found) -> None:
    assert found.tasks_after <= found.tasks_before


def test_every_rpc_can_be_drawn() -> None:
    assert {name for name, _ in METHODS} == {name for name in ACCESS if name.startswith("/usance.")}
