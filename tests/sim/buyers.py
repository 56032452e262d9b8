"""Buyers: they submit, submit again what may be lost, cancel, cancel twice, and race with themselves."""

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any

from coordinator.domain.account import Account
from coordinator.domain.refusal import Refusal, RefusalCode
from tests.sim.coordinator import SimCoordinator
from tests.sim.faults import Dice, Story
from tests.sim.loop import Process, VirtualLoop
from usance.v1 import market_pb2, types_pb2

PATIENCE_S = 8
GRACES_MS = [0, 500, 2_000, 10_000]


class Unheard(Exception):  # noqa: N818 - an answer that never came
    """Nobody knows whether the call was done."""


@dataclass
class Wish:
    """A job as its buyer knows it."""

    request_id: str
    spec: types_pb2.JobSpec
    job_ids: set[str] = field(default_factory=set)
    # When the buyer had it in writing that the job was being cancelled.
    cancelled_s: float | None = None
    refused: bool = False


class Buyer:
    def __init__(
        self,
        account: Account,
        *,
        loop: VirtualLoop,
        coordinator: SimCoordinator,
        dice: Dice,
        story: Story,
        jobs: int,
    ) -> None:
        self.account = account
        self._loop = loop
        self._coordinator = coordinator
        self._dice = dice
        self._story = story
        self.process = Process(f"buyer {account.name}", loop)
        self.wishes: list[Wish] = []
        self.work = [self.process.spawn(self._live(jobs), account.name)]

    async def ask(self, method: str, request: Any) -> Any:
        """One call over a bad network."""
        await asyncio.sleep(self._dice.log_ms(1, 200))
        if self._dice.chance(0.05):
            self._story.fault("call lost", method)
            raise Unheard
        answer = self._coordinator.ask(self.account, method, request)
        if self._dice.chance(0.05):
            self._story.fault("call doubled, late", method)
            self._loop.world_later(self._dice.log_ms(1, 60_000), self._again, method, request)
        if self._dice.chance(0.05):
            self._story.fault("answer lost", method)
            await asyncio.sleep(self._dice.log_ms(1, 1_000))
            raise Unheard
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await answer
        except TimeoutError:
            raise Unheard from None
        except Refusal:
            raise
        except Exception as error:
            self._story.seen[f"call failed: {type(error).__name__}"] += 1
            raise Unheard from error

    def _again(self, method: str, request: Any) -> None:
        """What was thought to be lost arrives after all; nobody hears the answer."""
        self._coordinator.ask(self.account, method, request)

    async def insist(self, method: str, request: Any) -> Any:
        """Ask until there is an answer: the same request each time."""
        while True:
            try:
                return await self.ask(method, request)
            except Unheard:
                await asyncio.sleep(self._dice.log_ms(100, 5_000))

    async def _live(self, jobs: int) -> None:
        for number in range(jobs):
            await asyncio.sleep(self._dice.log_ms(50, 60_000))
            wish = Wish(request_id=self._uuid(), spec=self._spec(number))
            self.wishes.append(wish)
            self.work.append(self.process.spawn(self._pursue(wish), wish.spec.name))

    async def _pursue(self, wish: Wish) -> None:
        request = market_pb2.SubmitJobRequest(request_id=wish.request_id, spec=wish.spec)
        twice = self._dice.chance(0.3)
        if twice:
            self._story.fault("submitted twice at once", wish.spec.name)
        tries = [self._submit(wish, request) for _ in range(2 if twice else 1)]
        await asyncio.gather(*tries)
        if len(wish.job_ids) > 1:
            self._story.violate(f"{wish.spec.name} was submitted under one id and is {sorted(wish.job_ids)}")
        if wish.job_ids and self._dice.chance(0.3):
            await asyncio.sleep(self._dice.log_ms(1, 60_000))
            races = [self._extend(wish) for _ in range(self._dice.rng.choice([1, 1, 2]))]
            if self._dice.chance(0.3):
                self._story.fault("extended and cancelled at once", wish.spec.name)
                races.append(self.cancel(wish))
            await asyncio.gather(*races)
        elif wish.job_ids and self._dice.chance(0.5):
            await asyncio.sleep(self._dice.log_ms(1, 90_000))
            await self.cancel(wish)

    async def _extend(self, wish: Wish) -> None:
        (job_id,) = wish.job_ids
        request = market_pb2.ExtendJobRequest(
            request_id=self._uuid(), job_id=job_id, budget_micro_more=int(10 ** self._dice.rng.uniform(4, 7))
        )
        try:
            await self.insist("ExtendJob", request)
        except Refusal as refusal:
            if refusal.code not in {RefusalCode.JOB_ENDED, RefusalCode.INSUFFICIENT_FUNDS}:
                self._story.violate(f"an extension was refused: {refusal}")
        else:
            self._story.seen["job extended"] += 1

    async def _submit(self, wish: Wish, request: market_pb2.SubmitJobRequest) -> None:
        try:
            answer = await self.insist("SubmitJob", request)
        except Refusal as refusal:
            wish.refused = True
            if refusal.code is not RefusalCode.INSUFFICIENT_FUNDS:
                self._story.violate(f"a good submit was refused: {refusal}")
        else:
            wish.job_ids.add(answer.job.job_id)

    async def cancel(self, wish: Wish) -> None:
        """Sometimes twice at once, as two windows would."""
        self._story.tell(f"{self.account.name} cancels {wish.spec.name}")
        calls = [self._cancel(wish) for _ in range(2 if self._dice.chance(0.3) else 1)]
        if len(calls) > 1:
            self._story.fault("cancelled twice at once", wish.spec.name)
        await asyncio.gather(*calls)

    async def _cancel(self, wish: Wish) -> None:
        (job_id,) = wish.job_ids
        try:
            await self.insist(
                "CancelJob", market_pb2.CancelJobRequest(request_id=self._uuid(), job_id=job_id)
            )
        except Refusal as refusal:
            if refusal.code is not RefusalCode.JOB_ENDED:
                self._story.violate(f"a cancel was refused: {refusal}")
        else:
            wish.cancelled_s = min(wish.cancelled_s or self._loop.time(), self._loop.time())

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._dice.rng.getrandbits(128), version=4))

    def _spec(self, number: int) -> types_pb2.JobSpec:
        dice, rng = self._dice, self._dice.rng
        endless = dice.chance(0.2)
        pull = "missing" if dice.chance(0.04) else "unstartable" if dice.chance(0.04) else "fine"
        return types_pb2.JobSpec(
            name=f"{self.account.name}-{number}",
            image="image",
            command=["work"],
            env={
                "RUN_MS": "0" if endless else str(int(dice.log_ms(5, 120_000) * 1_000)),
                "EXIT": str(rng.choice([0, 0, 0, 1, 7])),
                "PIECES": str(rng.choice([0, 3, 20])),
                "PULL": pull,
            },
            gpus=types_pb2.GpuRequest(count=rng.choice([1, 1, 1, 2])),
            isolation_min=types_pb2.ISOLATION_CONTAINER,
            budget_micro=int(10 ** rng.uniform(5.5, 8)),
            run_ms_max=rng.choice([0, 0, 20_000, 60_000]),
            stop_grace_ms=rng.choice(GRACES_MS),
            retries_max=rng.choice([0, 1, 3]),
            queue_ms_max=rng.choice([0, 0, 30_000]),
        )
