"""What scripts of jobs have in common."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from tests.support.running_coordinator import Running
from tests.support.scripted_agent import Run, ScriptedAgent
from usance.v1 import market_pb2 as m

T = TypeVar("T")
Script = Callable[[Running], Awaitable[None]]
# Runs a script against a market of its own.
Play = Callable[[Script], None]


async def started(market: Running, agent: ScriptedAgent, **spec: Any) -> tuple[m.Job, Run]:
    """A job of the buyer's whose command was seen running, just now."""
    job = await market.buyer.submit(**spec)
    run = await agent.taken()
    await agent.beat(run.prepares())
    await agent.beat(run.runs(0))
    return job, run


async def goes_on(market: Running, agent: ScriptedAgent, run: Run, run_ms: int, *, by_ms: int) -> None:
    """So much time passes, and the agent shows the run alive at its end."""
    market.clock.advance(by_ms)
    await agent.beat(run.runs(run_ms))


def kinds(events: list[m.Event]) -> list[str]:
    return [m.EventKind.Name(event.kind).removeprefix("EVENT_KIND_") for event in events]


def read_logs(market: Running, job_id: str, **where: Any) -> AsyncIterator[m.ReadLogsResponse]:
    call: AsyncIterator[m.ReadLogsResponse] = market.buyer.stream(
        market.buyer.market.ReadLogs, m.ReadLogsRequest(job_id=job_id, **where)
    )
    return call


async def all_of(answers: AsyncIterator[T]) -> list[T]:
    return [answer async for answer in answers]


def refusal(error: grpc.aio.AioRpcError | None) -> str:
    """The stable code that a refused call was answered with."""
    assert error is not None
    info = ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            Status.FromString(value).details[0].Unpack(info)
    return info.reason or error.code().name
