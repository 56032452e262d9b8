"""What runs on a seller's machine, and an executor over it: the one place that knows what truly ran.

Runs live in the world, not in the agent: they go on when it dies, and end with a reboot.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from agent.domain.attempt import AttemptKey, EndReason, Isolation, JobOrder, OutputChunk, OutputStream, Run
from agent.domain.confidential import Confidential
from agent.executor.ports import Progress, RunEnd, StartError
from tests.sim.clocks import SimClock
from tests.sim.faults import Dice, Story
from tests.sim.loop import VirtualLoop


@dataclass(kw_only=True)
class Container:
    """A command that truly ran."""

    key: AttemptKey
    order: JobOrder
    run_id: str
    boot_id: str
    host_name: str
    start_s: float
    start_boot_ms: int
    fuse_ms: int
    exit_code: int
    end_s: float | None = None
    run_ms: int | None = None
    reason: EndReason = EndReason.EXITED
    stop_asked_s: float | None = None
    output: list[OutputChunk] = field(default_factory=list)
    heard: set[asyncio.Event] = field(default_factory=set)

    @property
    def output_bytes(self) -> int:
        return self.output[-1].offset + len(self.output[-1].data) if self.output else 0

    def tell(self) -> None:
        for event in self.heard:
            event.set()


class Engine:
    """All runs of one machine. `has_fuse`: it stops a run at its paid-through time even without the agent."""

    def __init__(
        self, name: str, loop: VirtualLoop, clock: SimClock, dice: Dice, story: Story, *, has_fuse: bool
    ) -> None:
        self.name = name
        self.loop = loop
        self.clock = clock
        self.dice = dice
        self.story = story
        self.has_fuse = has_fuse
        self.prepared: set[AttemptKey] = set()
        self.runs: dict[AttemptKey, Container] = {}
        # Every run there ever was, for the auditor.
        self.history: list[Container] = []
        self.away_until_s = 0.0

    async def answer(self) -> None:
        """Every question takes a moment; one that is asked while the engine is away waits."""
        await asyncio.sleep(self.dice.log_ms(1, 30))
        while (left_s := self.away_until_s - self.loop.time()) >= 0:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(left_s + 0.001)

    def begin(self, order: JobOrder, fuse_ms: int) -> Container:
        if order.key in self.runs:
            self.story.violate(f"{order.key} was started twice on {self.name}")
        for other in self.runs.values():
            if other.end_s is None and set(other.order.gpu_uuids) & set(order.gpu_uuids):
                self.story.violate(f"{order.key} runs beside {other.key} on the same GPU of {self.name}")
        run = Container(
            key=order.key,
            order=order,
            run_id=f"run-{self.name}-{len(self.history)}",
            boot_id=self.clock.boot_id,
            host_name=self.name,
            start_s=self.loop.time(),
            start_boot_ms=self.clock.boot_ms(),
            fuse_ms=fuse_ms,
            exit_code=int(order.env["EXIT"]),
        )
        self.runs[order.key] = run
        self.history.append(run)
        self.story.tell(f"{self.name}: {order.key} runs as {run.run_id}")
        length_ms = int(order.env["RUN_MS"])
        if length_ms:
            self.loop.world_later(length_ms / 1_000, self.end, run, EndReason.EXITED, run.exit_code)
        if self.has_fuse:
            self._fuse(run)
        self._write(run, int(order.env["PIECES"]))
        return run

    def _write(self, run: Container, pieces_left: int) -> None:
        if run.end_s is not None or not pieces_left:
            return
        stream = OutputStream.STDOUT if self.dice.chance(0.7) else OutputStream.STDERR
        data = self.dice.rng.randbytes(self.dice.rng.choice([1, 20, 500, 70_000]))
        run.output.append(OutputChunk(offset=run.output_bytes, stream=stream, data=data))
        run.tell()
        self.loop.world_later(self.dice.log_ms(1, 20_000), self._write, run, pieces_left - 1)

    def _fuse(self, run: Container) -> None:
        if run.end_s is None:
            left_ms = run.fuse_ms - (self.clock.boot_ms() - run.start_boot_ms)
            if left_ms <= 0:
                self.ask_stop(run, EndReason.PAID_THROUGH)
            else:
                self.loop.world_later(left_ms / 1_000 / self.clock.rate + 0.001, self._fuse, run)

    def ask_stop(self, run: Container, reason: EndReason) -> None:
        if run.stop_asked_s is None and run.end_s is None:
            run.stop_asked_s = self.loop.time()
            grace_s = run.order.stop_grace_ms / 1_000
            # Some commands end politely, some must be killed.
            wanted_s = self.dice.log_ms(5, 5_000) if self.dice.chance(0.7) else grace_s
            code = 143 if wanted_s < grace_s else 137
            self.loop.world_later(min(wanted_s, grace_s), self.end, run, reason, code)

    def end(self, run: Container, reason: EndReason, exit_code: int) -> None:
        if run.end_s is not None:
            return
        run.end_s = self.loop.time()
        run.run_ms = self.clock.boot_ms() - run.start_boot_ms
        run.reason, run.exit_code = reason, exit_code
        self.story.tell(f"{self.name}: {run.key} ended ({reason}, {exit_code}) after {run.run_ms} ms")
        run.tell()

    def lose_all(self) -> None:
        """The machine stops: nothing of what ran goes on, and nobody saw it end."""
        for run in self.runs.values():
            if run.end_s is None:
                self.end(run, EndReason.HOST_LOST, -1)
        self.away_until_s = 0.0


class SimExecutor:
    """`agent.executor.ports.Executor` over an engine; one for each life of the agent."""

    isolation = Isolation.CONTAINER

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def describe(self) -> str:
        return "simulated"

    async def prepare(
        self, order: JobOrder, progress: Progress, confidential: Confidential | None = None
    ) -> None:
        engine, dice = self._engine, self._engine.dice
        progress("pulling")
        await engine.answer()
        engine.prepared.add(order.key)
        await asyncio.sleep(dice.log_ms(50, 25_000))
        if order.env["PULL"] == "missing":
            raise StartError(EndReason.IMAGE_UNAVAILABLE, "no such image")
        if dice.chance(0.03):
            engine.story.fault("start fails on the host", str(order.key))
            raise StartError(EndReason.START_FAILED, "the engine would not")

    async def start(self, order: JobOrder, paid_through_ms: int) -> Run:
        engine = self._engine
        await engine.answer()
        if order.env["PULL"] == "unstartable":
            raise StartError(EndReason.COMMAND_UNSTARTABLE, "no such program")
        run = engine.runs.get(order.key) or engine.begin(order, paid_through_ms)
        # It runs; whoever asked may die before it hears so.
        await asyncio.sleep(engine.dice.log_ms(5, 800))
        return _run(run)

    async def find(self, order: JobOrder) -> Run | None:
        await self._engine.answer()
        run = self._engine.runs.get(order.key)
        return None if run is None else _run(run)

    async def output(self, order: JobOrder, offset: int) -> AsyncIterator[tuple[OutputChunk, ...]]:
        run = self._engine.runs[order.key]
        event = asyncio.Event()
        run.heard.add(event)
        while True:
            ended = run.end_s is not None
            new = [_from(c, offset) for c in run.output if c.offset + len(c.data) > offset]
            if new:
                await self._engine.answer()
                offset = new[-1].offset + len(new[-1].data)
                yield tuple(new)
            elif ended:
                return
            else:
                event.clear()
                await event.wait()

    async def discard_output(self, order: JobOrder, offset: int) -> None:
        if offset > self._engine.runs[order.key].output_bytes:
            self._engine.story.violate(f"{order.key} discards output up to {offset}, which was never written")

    async def is_running(self, order: JobOrder) -> bool:
        await self._engine.answer()
        run = self._engine.runs.get(order.key)
        return run is not None and run.end_s is None

    async def wait(self, order: JobOrder) -> RunEnd:
        run = self._engine.runs[order.key]
        event = asyncio.Event()
        run.heard.add(event)
        while run.end_s is None:
            event.clear()
            await event.wait()
        await self._engine.answer()
        if run.reason is EndReason.HOST_LOST:
            return RunEnd(reason=run.reason, detail="nobody saw the end", run_ms=None, exit_code=None)
        return RunEnd(reason=run.reason, detail="", run_ms=run.run_ms, exit_code=run.exit_code)

    async def renew(self, order: JobOrder, paid_through_ms: int) -> None:
        await self._engine.answer()
        run = self._engine.runs.get(order.key)
        if run is not None:
            run.fuse_ms = max(run.fuse_ms, paid_through_ms)

    async def stop(self, order: JobOrder, grace_ms: int) -> None:
        await self._engine.answer()
        run = self._engine.runs.get(order.key)
        if run is not None:
            self._engine.ask_stop(run, EndReason.EXITED)

    async def destroy(self, key: AttemptKey) -> None:
        await self._engine.answer()
        run = self._engine.runs.pop(key, None)
        if run is not None and run.end_s is None:
            self._engine.end(run, EndReason.EXITED, 137)
        self._engine.prepared.discard(key)

    async def held(self) -> frozenset[AttemptKey]:
        await self._engine.answer()
        return frozenset(self._engine.runs) | frozenset(self._engine.prepared)

    async def look(self) -> None:
        """Nothing is there to get out."""

    async def close(self) -> None:
        """Nothing to let go of."""


def _run(run: Container) -> Run:
    return Run(run_id=run.run_id, start_boot_ms=run.start_boot_ms, boot_id=run.boot_id)


def _from(chunk: OutputChunk, offset: int) -> OutputChunk:
    skip = max(0, offset - chunk.offset)
    return OutputChunk(offset=chunk.offset + skip, stream=chunk.stream, data=chunk.data[skip:])
