"""The network between agents and the coordinator, in the shape of a gRPC channel.

A stream keeps its order or breaks: what was under way when it broke may still arrive, on a stream that only
the receiver believes in, or be lost. So the two ends see doubles, losses and reorderings between streams.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from grpc.aio import Metadata

from tests.sim.faults import Dice, Story
from tests.sim.loop import VirtualLoop

BUFFER_MESSAGES = 64


class Path:
    """The way between one host and the coordinator, both directions."""

    def __init__(self, name: str, loop: VirtualLoop, dice: Dice, story: Story) -> None:
        self.name = name
        self.loop = loop
        self.dice = dice
        self.story = story
        self.slow = 1.0
        # Nothing passes up, down; what was sent waits, as TCP does.
        self.up_open = True
        self.down_open = True
        # How likely a message is doubled, or lost; a stream that has lost one ends, as gRPC promises.
        self.unruly = 0.0
        self.streams: list[Stream] = []

    def delay_s(self) -> float:
        return self.dice.log_ms(1, 60) * self.slow

    def partition(self, *, up: bool, down: bool) -> None:
        self.up_open, self.down_open = not up, not down
        for stream in self.streams:
            stream.up.hurry()
            stream.down.hurry()

    def break_streams(self) -> None:
        """Both ends are told, sooner or later; each may lose what it was about to get."""
        for stream in list(self.streams):
            stream.break_off(grpc.StatusCode.UNAVAILABLE, "the connection was reset")


class Pipe:
    """Messages one way, in order."""

    def __init__(self, path: Path, is_open: Callable[[], bool]) -> None:
        self._path = path
        self._is_open = is_open
        self._on_way: deque[bytes] = deque()
        self._arrived: deque[bytes | BaseException | None] = deque()
        self._free_s = 0.0
        self._wake: asyncio.Future[Any] | None = None
        self._has_room: asyncio.Future[Any] | None = None
        self._timer: Any = None
        self.closed = False
        self.on_arrival: Callable[[bytes], None] | None = None

    async def send(self, message: bytes) -> None:
        self._on_way.append(message)
        self._schedule()
        while len(self._on_way) > BUFFER_MESSAGES and not self.closed:
            self._has_room = self._path.loop.create_future()
            await self._has_room

    def _schedule(self) -> None:
        if self._timer is None and self._on_way and self._is_open() and not self.closed:
            self._timer = self._path.loop.world_later(self._path.delay_s(), self._deliver)

    def hurry(self) -> None:
        """The way may be open again."""
        self._schedule()

    def _deliver(self) -> None:
        self._timer = None
        if self.closed or not self._is_open():
            return
        # What piled up while one message travelled arrives with it.
        while self._on_way:
            for message in self._next():
                if self.on_arrival is not None:
                    self.on_arrival(message)
                self._put(message)
            if self._path.dice.chance(0.5):
                break
        if self._has_room is not None and not self._has_room.done():
            self._has_room.set_result(None)
        self._schedule()

    def _next(self) -> list[bytes]:
        """What comes out at the other end for the next of those on their way."""
        message, dice = self._on_way.popleft(), self._path.dice
        if not self._path.unruly or not dice.chance(self._path.unruly):
            return [message]
        kind = dice.rng.choice(["doubled", "lost"])
        self._path.story.fault(f"message {kind}", self._path.name)
        if kind == "doubled":
            return [message, message]
        self._path.break_streams()
        return []

    def _put(self, item: bytes | BaseException | None) -> None:
        self._arrived.append(item)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def close(self, last: BaseException | None) -> None:
        """Nothing more arrives after this."""
        if not self.closed:
            self.closed = True
            self._put(last)
            if self._has_room is not None and not self._has_room.done():
                self._has_room.set_result(None)

    async def receive(self) -> bytes | None:
        """None: the end. Raises what the stream broke with."""
        while not self._arrived:
            self._wake = self._path.loop.create_future()
            await self._wake
        item = self._arrived[0]
        if item is None or isinstance(item, BaseException):
            if item is not None:
                raise item
            return None
        self._arrived.popleft()
        return item


class Stream:
    """One call of Synchronize."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.up = Pipe(path, lambda: path.up_open)
        self.down = Pipe(path, lambda: path.down_open)
        self.on_gone: Callable[[], None] = lambda: None
        self.status: tuple[grpc.StatusCode, str] = (grpc.StatusCode.OK, "")
        path.streams.append(self)

    def break_off(self, code: grpc.StatusCode, why: str) -> None:
        """From outside: the agent's end learns of it soon, the coordinator's soon, late or never."""
        self.leave(code, why)
        delay_s = self.path.dice.log_ms(1, 3_000)
        self.path.loop.world_later(delay_s, self.down.close, _error(code, why))

    def leave(self, code: grpc.StatusCode, why: str) -> None:
        """The agent's end is gone; what it has sent may still arrive."""
        if self not in self.path.streams:
            return
        self.path.streams.remove(self)
        dice = self.path.dice
        if dice.chance(0.15):
            # Only the coordinator believes in it now, and still gets what was under way, late.
            self.path.story.fault("half-open stream", self.path.name)
            self.path.loop.world_later(dice.ms(20_000, 90_000), self._gone)
        else:
            self.path.loop.world_later(dice.log_ms(1, 2_000), self._gone)

    def _gone(self) -> None:
        self.up.close(_error(grpc.StatusCode.CANCELLED, "the other end is gone"))
        self.on_gone()

    def end(self, code: grpc.StatusCode, why: str) -> None:
        """The coordinator has ended it."""
        self.status = (code, why)
        if self in self.path.streams:
            self.path.streams.remove(self)
        self.up.close(None)
        last = None if code is grpc.StatusCode.OK else _error(code, why)
        self.path.loop.world_later(self.path.delay_s(), self.down.close, last)


def _error(code: grpc.StatusCode, why: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, Metadata(), Metadata(), details=why)


class Channel:
    """What the agent takes for a grpc.aio.Channel. `connect` opens a stream to whoever listens."""

    def __init__(self, path: Path, connect: Callable[[Stream], bool], tamper: Any = None) -> None:
        self._path = path
        self._connect = connect
        self._tamper = tamper

    def stream_stream(
        self, _method: str, request_serializer: Any, response_deserializer: Any, **_: Any
    ) -> Callable[..., "Call"]:
        return lambda **_: Call(
            self._path, self._connect, request_serializer, response_deserializer, self._tamper
        )

    def unary_unary(self, *_: Any, **__: Any) -> Callable[[], None]:
        """A stub makes all its calls. None of these is made here: hosts are known without certificates."""
        return lambda: None

    async def close(self, grace: float | None = None) -> None:
        """Its calls were cancelled by whoever made them."""


class Call:
    """The agent's end of a stream."""

    def __init__(
        self,
        path: Path,
        connect: Callable[[Stream], bool],
        serialize: Callable[[Any], bytes],
        parse: Callable[[bytes], Any],
        tamper: Callable[[Any], list[Any]] | None,
    ) -> None:
        self._path = path
        self._connect = connect
        self._serialize = serialize
        self._parse = parse
        self._tamper = tamper
        self._stream: Stream | None = None

    async def write(self, message: Any) -> None:
        if self._stream is None:
            await asyncio.sleep(self._path.delay_s())
            while not (self._path.up_open and self._path.down_open):  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(1)
            stream = Stream(self._path)
            if not self._connect(stream):
                self._path.streams.remove(stream)
                raise _error(grpc.StatusCode.UNAVAILABLE, "nobody listens")
            self._stream = stream
        if self._stream.up.closed:
            raise _error(grpc.StatusCode.UNAVAILABLE, "the stream is closed")
        for item in [message] if self._tamper is None else self._tamper(message):
            await self._stream.up.send(self._serialize(item))

    async def read(self) -> Any:
        assert self._stream is not None
        raw = await self._stream.down.receive()
        return grpc.aio.EOF if raw is None else self._parse(raw)

    def cancel(self) -> bool:
        if self._stream is not None:
            self._stream.leave(grpc.StatusCode.CANCELLED, "cancelled")
            self._stream.down.close(_error(grpc.StatusCode.CANCELLED, "cancelled"))
        return True

    async def code(self) -> grpc.StatusCode:
        assert self._stream is not None
        return self._stream.status[0]

    async def details(self) -> str:
        assert self._stream is not None
        return self._stream.status[1]
