"""Thousands of agents in one process, each with a connection of its own, told what to do line by line.

    python -m benchmarks.fleet grpc|bare FLEET_JSON HOST:PORT

Reads JSON commands from its standard input and answers each with one line of JSON.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from agent.link.client import BACKOFF_MS_MAX, BACKOFF_MS_MIN, WELCOME_WAIT_MS
from benchmarks.floors import run
from benchmarks.simulated import Agent, BareAgent, GrpcAgent, bare_context

OPEN_AT_ONCE = 64
REOPEN_S = WELCOME_WAIT_MS / 1_000

Answer = dict[str, Any]


class Fleet:
    def __init__(self, agents: Sequence[Agent]) -> None:
        self._agents = agents
        self._random = random.Random(1)

    async def open(self, count: int) -> Answer:
        """The first `count` agents connect, as fast as they may."""
        gate, failed = asyncio.Semaphore(OPEN_AT_ONCE), 0

        async def one(agent: Agent) -> None:
            nonlocal failed
            async with gate:
                for _ in range(3):
                    if await _opened(agent):
                        return
                failed += 1

        began = time.monotonic()
        await asyncio.gather(*(one(agent) for agent in self._agents[:count]))
        return {"seconds": time.monotonic() - began, "failed": failed}

    async def closed(self, count: int, seconds: float, outstanding: int) -> Answer:
        """Every answer is followed by the next heartbeat, with so many under way."""

        async def beat(agent: Agent) -> int:
            await agent.beat()
            return 1

        return await self._by_turns(count, seconds, outstanding, beat)

    async def prepare(self, count: int, messages: int, size: int) -> Answer:
        """Usage for `usage` to send, so that to make it is no part of what is measured."""
        for agent in self._agents[:count]:
            agent.prepare(messages, size)
        return {}

    async def usage(self, count: int, seconds: float, outstanding: int) -> Answer:
        """What was prepared, as far as there is time for it; `count` is of records."""
        return await self._by_turns(count, seconds, outstanding, lambda agent: agent.use())

    async def _by_turns(
        self, count: int, seconds: float, outstanding: int, do: Callable[[Agent], Awaitable[int]]
    ) -> Answer:
        agents, times_s, done = self._agents[:count], list[float](), 0
        began = time.monotonic()

        async def worker(mine: Sequence[Agent]) -> None:
            nonlocal done
            while True:
                for agent in mine:
                    sent = time.monotonic()
                    if sent - began > seconds:
                        return
                    came = await do(agent)
                    if not came:
                        return
                    done += came
                    times_s.append(time.monotonic() - sent)

        width = min(outstanding, count)
        await asyncio.gather(*(worker(agents[i::width]) for i in range(width)))
        return {"count": done, "seconds": time.monotonic() - began, **_percentiles(times_s)}

    async def paced(self, count: int, seconds: float, interval_s: float) -> Answer:
        """Each agent beats once in an interval, at a phase of its own."""
        times_s = list[float]()
        began = time.monotonic()

        async def one(agent: Agent, due: float) -> None:
            while due < began + seconds:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                sent = time.monotonic()
                await agent.beat()
                times_s.append(time.monotonic() - sent)
                due += interval_s

        phases = [self._random.uniform(0, interval_s) for _ in range(count)]
        pairs = zip(self._agents[:count], phases, strict=True)
        await asyncio.gather(*(one(agent, began + phase) for agent, phase in pairs))
        return {"count": len(times_s), "seconds": time.monotonic() - began, **_percentiles(times_s)}

    async def work(self, count: int, attempts: int) -> Answer:
        """Take attempts and report them as done at once, until so many have come; when the last one did."""
        came, last = 0, asyncio.Event()

        def on_attempt() -> None:
            nonlocal came
            came += 1
            if came == attempts:
                last.set()

        workers = [asyncio.create_task(agent.work(on_attempt)) for agent in self._agents[:count]]
        await last.wait()
        moment = time.monotonic()
        for worker in workers:
            worker.cancel()
        return {"moment": moment}

    async def storm(self, count: int) -> Answer:
        """Wait until every stream has ended, and come back as agents do. Moments are of the monotonic clock,
        which the one who kills the coordinator shares."""
        back = await asyncio.gather(*(self._come_back(agent) for agent in self._agents[:count]))
        moments = sorted(back)
        return {"half": moments[len(moments) // 2], "all": moments[-1]}

    async def _come_back(self, agent: Agent) -> float:
        spread_s = await agent.wait_for_end()
        least_s, most_s = BACKOFF_MS_MIN / 1_000, BACKOFF_MS_MAX / 1_000
        if spread_s is not None:
            await asyncio.sleep(self._random.uniform(0, spread_s))
            if await _opened(agent):
                return time.monotonic()
        while True:
            await asyncio.sleep(self._random.uniform(least_s, most_s))
            if await _opened(agent):
                return time.monotonic()

    async def close(self) -> Answer:
        for agent in self._agents:
            await agent.close()
        return {}


async def _opened(agent: Agent) -> bool:
    try:
        async with asyncio.timeout(REOPEN_S):
            await agent.open()
    except Exception:  # noqa: BLE001 - whatever ended it, an agent tries again
        await agent.close()
        return False
    return True


def _percentiles(times_s: list[float]) -> dict[str, float]:
    times_s.sort()
    count = len(times_s)
    return {"p50_ms": times_s[count // 2] * 1e3, "p99_ms": times_s[min(count - 1, count * 99 // 100)] * 1e3}


def make_agents(kind: str, fleet: dict[str, Any], target: str) -> list[Agent]:
    if kind == "grpc":
        return [
            GrpcAgent(target, fleet["authority_pem"], fleet["key_pem"], a["certificate_pem"], a["attempts"])
            for a in fleet["agents"]
        ]
    context = bare_context(fleet["authority_pem"], fleet["key_pem"], fleet["agents"][0]["certificate_pem"])
    return [BareAgent(target, context, a["attempts"]) for a in fleet["agents"]]


async def main(fleet: Fleet) -> None:
    verbs: dict[str, Callable[..., Awaitable[Answer]]] = {
        "open": fleet.open,
        "closed": fleet.closed,
        "prepare": fleet.prepare,
        "usage": fleet.usage,
        "paced": fleet.paced,
        "work": fleet.work,
        "storm": fleet.storm,
        "close": fleet.close,
    }
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        answer = await verbs[command.pop("do")](**command)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    told = json.loads(Path(sys.argv[2]).read_text())
    run(main(Fleet(make_agents(sys.argv[1], told, sys.argv[3]))))
