"""Tokens are looked up once for many calls, and a revoked one opens nothing from the moment of its commit."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, cast

import pytest

from coordinator.api.bell import Bell
from coordinator.api.edge import Store
from coordinator.api.keys import KEPT_MS, Keys
from coordinator.domain.account import Account, Bearer, Role
from coordinator.domain.refusal import Refusal, RefusalCode
from coordinator.services.tokens import TOKENS_TOPIC
from runtime.clock import Clock

BUYER = Bearer(
    account=Account(id="acc_1", name="buyer", roles=frozenset({Role.BUYER})),
    token_id="tok_1",
    expires_ms=2_000_000,
)
REFUSED = Refusal(RefusalCode.UNAUTHENTICATED, "revoked")


class Lookups:
    """A store whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: list[Future[Any]] = []

    def gather_read(self, together: Callable[..., Sequence[Any]], item: object) -> Future[Any]:
        self.asked.append(Future())
        return self.asked[-1]


class Hands:
    now_ms = 1_000_000

    def wall_ms(self) -> int:
        return self.now_ms


async def answered(keys: Keys, lookups: Lookups, answer: Bearer | Refusal | None) -> Bearer | None:
    """What the next call is told; None: it was not asked about."""
    before = len(lookups.asked)
    task = asyncio.create_task(keys.owner("secret"))
    await asyncio.sleep(0)
    if len(lookups.asked) == before:
        await task
        return None
    lookups.asked[-1].set_result(answer)
    return await task


def test_a_token_is_looked_up_once_a_while_and_anew_after_a_revocation() -> None:
    async def scene() -> None:
        lookups, hands = Lookups(), Hands()
        bell = Bell(asyncio.get_running_loop())
        keys = Keys(cast("Store", lookups), cast("Clock", hands), bell)
        assert await answered(keys, lookups, BUYER) == BUYER
        assert await answered(keys, lookups, BUYER) is None, "it is known"
        hands.now_ms += KEPT_MS
        assert await answered(keys, lookups, BUYER) == BUYER, "it may have expired"
        bell.ring({TOKENS_TOPIC: None})
        await asyncio.sleep(0)
        with pytest.raises(Refusal):
            await answered(keys, lookups, REFUSED)
        # A look from before the revocation, answered after it, is not kept.
        task = asyncio.create_task(keys.owner("secret"))
        await asyncio.sleep(0)
        keys.rung(None)
        lookups.asked[-1].set_result(BUYER)
        assert await task == BUYER
        assert await answered(keys, lookups, BUYER) == BUYER, "it was looked up again"

    asyncio.run(scene())
