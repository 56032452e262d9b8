"""The agent's one conversation with the coordinator, for as long as the agent lives."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio

from agent.domain.attempt import Acknowledgement, AttemptKey, AttemptReport, DesiredAttempt, OutputChunk
from agent.domain.host import Hello
from agent.link import convert
from runtime import ids
from runtime.clock import Clock
from runtime.evidence import UsageRecord
from runtime.tracing import KEY, OFF, Tracer
from usance.v1 import host_pb2, host_pb2_grpc

log = logging.getLogger(__name__)

OUTPUT_ON_WIRE_BYTES_MAX = 1 << 20
LOG_REPORT_BYTES_MAX = 256 << 10
LOG_REPORT_CHUNKS_MAX = 64
# Of all attempts that one message tells of.
USAGE_REPORT_RECORDS_MAX = 256
USAGE_REPORTS_MAX = 256
# A coordinator that takes over lets us in when it has the seat.
WELCOME_WAIT_MS = 30_000
# A wrong welcome must neither flood the coordinator nor make us seem dead.
BEAT_MS_MIN = 100
BEAT_MS_MAX = 60_000
# Each beat tells of everything: where many attempts change at the same time, one beat tells of many changes.
# So the next one waits for the answer to the last, though not for ever.
BEAT_GAP_MS = 5
ANSWER_WAIT_MS = 1_000
# What is done on the way to a start is soon followed by the start.
PROGRESS_WAIT_MS = 50
SILENCE_BEATS = 3
SILENCE_MS_MIN = 5_000
BACKOFF_MS_MIN = 1_000
# However often it failed: whoever waits longer than the reconnect window has lost its jobs by waiting.
BACKOFF_MS_MAX = 10_000

_Call = grpc.aio.StreamStreamCall[host_pb2.SynchronizeRequest, host_pb2.SynchronizeResponse]


class Holder(Protocol):
    """What the link asks of whoever holds the attempts."""

    async def apply(self, desired: Sequence[DesiredAttempt], *, is_first: bool = False) -> None: ...

    async def acknowledge(self, acknowledged: Acknowledgement) -> None: ...

    def reports(self) -> tuple[AttemptReport, ...]: ...

    def keys(self) -> tuple[AttemptKey, ...]: ...

    def usage_after(self, key: AttemptKey, number: int, count_max: int) -> tuple[UsageRecord, ...]: ...

    def output_from(self, key: AttemptKey, offset: int, bytes_max: int) -> tuple[OutputChunk, ...]: ...

    def acknowledged(self, key: AttemptKey) -> tuple[int, int]: ...


class StreamEndedError(Exception):
    """The stream is of no more use; the message says why."""


class Stream:
    """One stream, from hello to its end. It remembers only what it has sent itself."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        hello: Callable[[], Hello],
        holder: Holder,
        clock: Clock,
        traces: Tracer = OFF,
    ) -> None:
        self._channel = channel
        self._traces = traces
        self._hello = hello
        self._holder = holder
        self._clock = clock
        self._wake = asyncio.Event()
        self._hello_again = False
        self._beat_at_ms = 0
        self._beaten_at_ms = 0
        # When what has changed since the last beat is to be told.
        self._news_at_ms: int | None = None
        self._answered = True
        self._desired = convert.DesiredReader()
        self._beat_number = 0
        self._heard_at_ms = 0
        self._told = False
        self._usage_sent: dict[AttemptKey, int] = {}
        # When usage was sent that is not acknowledged yet: what comes due meanwhile goes up together.
        self._usage_at_ms: int | None = None
        self._usage_reports_max = 1
        self._output_sent: dict[AttemptKey, int] = {}
        self.welcomed = asyncio.Event()
        self.drain_ms: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def changed(self) -> None:
        """An attempt's state has changed: beat at once, unless we just did."""
        self._tell_within(0)

    def progressed(self) -> None:
        """What an attempt does or awaits is another."""
        self._tell_within(PROGRESS_WAIT_MS)

    def _tell_within(self, wait_ms: int) -> None:
        at_ms = self._clock.boot_ms() + wait_ms
        self._news_at_ms = at_ms if self._news_at_ms is None else min(self._news_at_ms, at_ms)
        self._wake.set()

    def evidence(self) -> None:
        """There is usage or output to send."""
        self._wake.set()

    def facts_changed(self) -> None:
        """What the machine has is not what hello has said: say it again."""
        self._hello_again = True
        self._wake.set()

    async def run(self) -> None:
        """Talk until the stream ends. Raises whatever ended it."""
        stub = host_pb2_grpc.HostServiceStub(self._channel)
        with self._traces.span("usance.v1.HostService/Synchronize", {}) as place:
            await self._run(stub.Synchronize(metadata=[(KEY, place)] if place else None))

    async def _run(self, call: _Call) -> None:
        try:
            # A peer that takes the connection and says nothing is no better than one that is not there.
            async with asyncio.timeout(WELCOME_WAIT_MS / 1_000):
                await call.write(convert.hello_request(self._hello()))
                first = await call.read()
            if not isinstance(first, host_pb2.SynchronizeResponse) or not first.HasField("welcome"):
                raise StreamEndedError(await _why(call, "the coordinator did not begin with a welcome"))
            log.info("connected as host %s", first.welcome.host_id)
            self._heard_at_ms = self._clock.boot_ms()
            self._usage_reports_max = min(max(first.welcome.usage_reports_max, 1), USAGE_REPORTS_MAX)
            self.welcomed.set()
            beat_ms = min(max(first.welcome.beat_interval_ms, BEAT_MS_MIN), BEAT_MS_MAX)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(call))
                group.create_task(self._write(call, beat_ms))
                group.create_task(self._listen_for_silence(beat_ms))
        finally:
            call.cancel()

    async def _read(self, call: _Call) -> None:
        while True:
            message = await call.read()
            if not isinstance(message, host_pb2.SynchronizeResponse):
                raise StreamEndedError(await _why(call, "the coordinator closed the stream"))
            self._heard_at_ms = self._clock.boot_ms()
            match message.WhichOneof("message"):
                case "desired":
                    self._answered = True
                    desired = self._desired.read(message.desired)
                    await self._holder.apply(desired, is_first=not self._told)
                    self._told = True
                    self._wake.set()
                case "acknowledged":
                    self._usage_at_ms = None
                    await self._holder.acknowledge(convert.acknowledgement(message.acknowledged))
                    self._wake.set()
                case "acknowledged_many":
                    self._usage_at_ms = None
                    for one in message.acknowledged_many.acknowledged:
                        await self._holder.acknowledge(convert.acknowledgement(one))
                    self._wake.set()
                case "drain":
                    if not self.drain_ms.done():
                        self.drain_ms.set_result(message.drain.spread_ms)
                case _:
                    pass  # a second welcome, or news for a newer agent

    async def _write(self, call: _Call, beat_interval_ms: int) -> None:
        """The only writer of the stream: beats first, then usage, then output."""
        while True:
            self._wake.clear()
            now_ms = self._clock.boot_ms()
            if self._hello_again:
                self._hello_again = False
                await call.write(convert.hello_request(self._hello()))
            elif now_ms >= self._next_beat_ms():
                self._beaten_at_ms = now_ms
                self._beat_at_ms = now_ms + beat_interval_ms
                self._news_at_ms, self._answered = None, False
                self._beat_number += 1
                await call.write(convert.beat_request(self._beat_number, self._holder.reports()))
            elif (message := self._evidence()) is not None:
                await call.write(message)
            else:
                wait_ms = self._next_beat_ms() - self._clock.boot_ms()
                if wait_ms > 0:
                    try:
                        async with asyncio.timeout(wait_ms / 1_000):
                            await self._wake.wait()
                    except TimeoutError:
                        pass

    def _next_beat_ms(self) -> int:
        if self._news_at_ms is None:
            return self._beat_at_ms
        gap_ms = BEAT_GAP_MS if self._answered else ANSWER_WAIT_MS
        return min(self._beat_at_ms, max(self._news_at_ms, self._beaten_at_ms + gap_ms))

    async def _listen_for_silence(self, beat_interval_ms: int) -> None:
        """A peer may be gone without the connection knowing."""
        silence_ms = max(SILENCE_MS_MIN, SILENCE_BEATS * beat_interval_ms)
        while (silent_ms := self._clock.boot_ms() - self._heard_at_ms) < silence_ms:
            await self._clock.sleep_ms(silence_ms - silent_ms)
        raise StreamEndedError(f"the coordinator has been silent for {silent_ms} ms")

    def _evidence(self) -> host_pb2.SynchronizeRequest | None:
        """The next usage or output to send. Nothing before the coordinator has said what it has already."""
        if not self._told:
            return None
        keys = self._holder.keys()
        return self._usage(keys) or self._output(keys)

    def _usage(self, keys: Sequence[AttemptKey]) -> host_pb2.SynchronizeRequest | None:
        """What is due of all attempts, as far as one message may hold it."""
        now_ms, since_ms = self._clock.boot_ms(), self._usage_at_ms
        if self._usage_reports_max > 1 and since_ms is not None and now_ms - since_ms < ANSWER_WAIT_MS:
            return None
        due: list[tuple[AttemptKey, Sequence[UsageRecord]]] = []
        room = USAGE_REPORT_RECORDS_MAX
        for key in keys:
            sent = max(self._usage_sent.get(key, 0), self._holder.acknowledged(key)[0])
            records = self._holder.usage_after(key, sent, room)
            if records:
                self._usage_sent[key] = records[-1].number
                due.append((key, records))
                room -= len(records)
            if room == 0 or len(due) == self._usage_reports_max:
                break
        if not due:
            return None
        self._usage_at_ms = now_ms
        return convert.usage_request(due)

    def _output(self, keys: Sequence[AttemptKey]) -> host_pb2.SynchronizeRequest | None:
        acknowledged = {key: self._holder.acknowledged(key)[1] for key in keys}
        on_wire = sum(max(0, self._output_sent.get(key, 0) - acknowledged[key]) for key in keys)
        room = min(OUTPUT_ON_WIRE_BYTES_MAX - on_wire, LOG_REPORT_BYTES_MAX)
        if room <= 0:
            return None
        # Whoever waits longest comes first: the one with the least sent of what is here.
        for key in sorted(keys, key=lambda key: self._output_sent.get(key, 0)):
            sent = max(self._output_sent.get(key, 0), acknowledged[key])
            chunks = self._holder.output_from(key, sent, room)[:LOG_REPORT_CHUNKS_MAX]
            if chunks:
                self._output_sent[key] = chunks[-1].offset + len(chunks[-1].data)
                return convert.log_request(key, chunks)
        return None


class Link:
    """Keeps a stream open, whatever happens."""

    def __init__(
        self,
        *,
        open_channel: Callable[[], grpc.aio.Channel],
        hello: Callable[[], Hello],
        holder: Holder,
        clock: Clock,
        traces: Tracer = OFF,
    ) -> None:
        self._traces = traces
        self._open_channel = open_channel
        self._hello = hello
        self._holder = holder
        self._clock = clock
        self._streams: set[Stream] = set()
        # Streams that are over, and had been welcomed.
        self._left = 0

    def changed(self) -> None:
        for stream in self._streams:
            stream.changed()

    def progressed(self) -> None:
        for stream in self._streams:
            stream.progressed()

    def evidence(self) -> None:
        for stream in self._streams:
            stream.evidence()

    @property
    def connected(self) -> bool:
        """A coordinator has welcomed us, and we have not heard that it is gone."""
        return any(stream.welcomed.is_set() for stream in self._streams)

    @property
    def connections(self) -> int:
        """How often a coordinator has welcomed us."""
        return self._left + sum(stream.welcomed.is_set() for stream in self._streams)

    def facts_changed(self) -> None:
        for stream in self._streams:
            stream.facts_changed()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._keep_a_stream()
            delay_ms = random_ms(BACKOFF_MS_MIN, BACKOFF_MS_MAX)
            log.info("connecting again in %d ms", delay_ms)
            await self._clock.sleep_ms(delay_ms)

    async def _keep_a_stream(self) -> None:
        """Talk on one stream, and on its successors where it is drained, until one ends by itself."""
        stream, task = self._begin()
        try:
            while True:
                ends: set[asyncio.Future[Any]] = {task, stream.drain_ms}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    return
                await self._clock.sleep_ms(random_ms(0, stream.drain_ms.result()))
                following, following_task = self._begin()
                welcome = asyncio.ensure_future(following.welcomed.wait())
                begun: set[asyncio.Future[Any]] = {welcome, following_task}
                await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
                welcome.cancel()
                task.cancel()
                await asyncio.wait({task})
                stream, task = following, following_task
        finally:
            task.cancel()
            await asyncio.wait({task})

    def _begin(self) -> tuple[Stream, asyncio.Task[None]]:
        channel = self._open_channel()
        stream = Stream(channel, self._hello, self._holder, self._clock, self._traces)
        return stream, asyncio.create_task(self._talk(stream, channel))

    async def _talk(self, stream: Stream, channel: grpc.aio.Channel) -> None:
        self._streams.add(stream)
        try:
            await stream.run()
        except Exception as error:  # noqa: BLE001  whatever it is, the answer is to connect again
            log.warning("the link to the coordinator broke: %s", describe(error))
        finally:
            self._streams.discard(stream)
            self._left += stream.welcomed.is_set()
            await channel.close()


def random_ms(least_ms: int, most_ms: int) -> int:
    """A random duration, so that a crowd of agents does not come back as one."""
    return least_ms + ids.new_uuid().int % (max(most_ms - least_ms, 0) + 1)


def describe(error: BaseException) -> str:
    """The cause in a line."""
    if isinstance(error, BaseExceptionGroup):
        return describe(error.exceptions[0])
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__


async def _why(call: _Call, otherwise: str) -> str:
    """What the call ended with; a call that ended well was closed by the other side."""
    async with asyncio.timeout(1):
        code, details = await call.code(), await call.details()
    return otherwise if code is grpc.StatusCode.OK else f"{code.name}: {details}"
