"""One call and its tries."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from cli.client.calls import Caller, Patience
from runtime.clock import SystemClock


@pytest.mark.parametrize("told", ["a cut", "the answer"])
def test_who_is_to_stop_stops_though_grpc_keeps_it_to_itself(told: str) -> None:
    """`usance top` went on after Ctrl-C, once in a while: the call ended in the same moment."""
    tries = list[str]()

    async def method(_request: object, **_: object) -> None:
        tries.append("one")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if told == "the answer":
                return
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, nothing, nothing) from None

    async def scenario() -> None:
        caller = Caller(
            target="market", credential=None, clock=SystemClock(), patience=Patience(), on_trouble=print
        )
        call: Any = caller.call(method, None)  # type: ignore[arg-type]
        task = asyncio.create_task(call)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 30)

    asyncio.run(scenario())
    assert tries == ["one"]
