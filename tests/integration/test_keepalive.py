"""What our channels do on a line that a router has forgotten, with their times made a hundredth."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from runtime.channel import CHANNEL_OPTIONS, KEEPALIVE_MS, PING_TIMEOUT_MS, SERVER_OPTIONS
from tests.support.line import Line

Options = list[tuple[str, int]]
Echo = Callable[[], Awaitable[bytes]]

_TIMES = {KEEPALIVE_MS, KEEPALIVE_MS // 2, PING_TIMEOUT_MS}
# Far more than a hundredth of what our options promise, far less than what gRPC does without them.
_LONGEST_S = 20
_PINGS = 12
# By itself it sends two when nothing else is said, and then one a minute.
_TIRELESS: Options = [*CHANNEL_OPTIONS, ("grpc.http2.max_pings_without_data", 0)]


def _sooner(options: Options) -> Options:
    return [(name, value // 100 if value in _TIMES else value) for name, value in options]


def _without(options: Options, left_out: str) -> Options:
    return [option for option in options if option[0] != left_out]


class _Scene:
    """A server that echoes, a line to it, and a stream over that line."""

    def __init__(self, server: Options, client: Options) -> None:
        self._server = grpc.aio.server(options=_sooner(server))
        self._client = client
        self.handler_ended = asyncio.Event()

    async def __aenter__(self) -> "_Scene":
        handlers: dict[str, Any] = {"Echo": grpc.stream_stream_rpc_method_handler(self._echo)}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.line = Line(f"127.0.0.1:{port}")
        self._channel = grpc.aio.insecure_channel(self.line.address, options=_sooner(self._client))
        self._call: Any = self._channel.stream_stream("/test/Echo")()
        assert await self.echo() == b"hello"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.line.mend()
        await self._channel.close()
        await self._server.stop(0)
        self.line.close()

    async def _echo(self, requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        try:
            async for request in requests:
                yield request
        finally:
            self.handler_ended.set()

    async def echo(self) -> bytes:
        await self._call.write(b"hello")
        return bytes(await self._call.read())

    async def lost(self) -> grpc.StatusCode:
        """What the client is told when it only listens."""
        try:
            await self._call.read()
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def pinged(self, times: int) -> None:
        """Until so many pieces have gone up the line in which nobody says a word."""
        target = self.line.pieces_up + times
        while self.line.pieces_up < target:  # noqa: ASYNC110 - they pass in another thread
            await asyncio.sleep(0.05)


def _run(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(_LONGEST_S):
            await scene()

    asyncio.run(bounded())


def test_both_ends_notice_that_nothing_passes_any_more() -> None:
    async def play() -> None:
        async with _Scene(SERVER_OPTIONS, CHANNEL_OPTIONS) as scene:
            scene.line.cut_off()
            assert await scene.lost() is grpc.StatusCode.UNAVAILABLE
            await scene.handler_ended.wait()

    _run(play)


def test_a_stream_on_which_nobody_speaks_is_pinged_and_not_cut_for_it() -> None:
    async def play() -> None:
        async with _Scene(SERVER_OPTIONS, _TIRELESS) as scene:
            await scene.pinged(_PINGS)
            assert await scene.echo() == b"hello"

    _run(play)


def test_without_the_servers_option_such_a_stream_is_cut() -> None:
    """Or the test above would show nothing."""

    async def play() -> None:
        strict = _without(SERVER_OPTIONS, "grpc.http2.min_ping_interval_without_data_ms")
        async with _Scene(strict, _TIRELESS) as scene:
            assert await scene.lost() is grpc.StatusCode.UNAVAILABLE

    _run(play)


def test_the_times_are_those_of_routers() -> None:
    """Many forget a connection on which nothing has passed for 30 seconds to 5 minutes."""
    assert KEEPALIVE_MS < 30_000
    assert dict(SERVER_OPTIONS)["grpc.http2.min_ping_interval_without_data_ms"] < KEEPALIVE_MS
    assert dict(CHANNEL_OPTIONS)["grpc.keepalive_permit_without_calls"] == 1
