"""What every executor must do: the fake, child processes, and containers in a real engine."""

import asyncio
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.domain.attempt import AttemptKey, EndReason, Isolation, JobOrder, OutputStream
from agent.domain.images import ImagePolicy
from agent.domain.plan import HostPolicy
from agent.executor.docker import DockerExecutor
from agent.executor.fake import FakeExecutor, FakeWorld, Script
from agent.executor.firewall import Firewall
from agent.executor.ports import Executor, RunEnd, StartError
from agent.executor.process import ProcessExecutor
from runtime.clock import SystemClock
from tests.rig.dockerd import Engine
from tests.rig.images import TINY, tiny_image
from tests.rig.parts import wait_until

OUT, ERR = OutputStream.STDOUT, OutputStream.STDERR
DEADLINE_S = 40
FOREVER_PAID_MS = 3_600_000
CLOCK = SystemClock()
_numbers = itertools.count(1)


@dataclass
class Bench:
    """One executor with what it runs on. `again` makes a second one, as an agent that was restarted would."""

    make: Callable[[], Executor]
    command: Callable[[Script], tuple[str, ...]]
    world: FakeWorld | None = None
    made: list[Executor] = field(default_factory=list)

    @property
    def executor(self) -> Executor:
        return self.made[0] if self.made else self.again()

    def again(self) -> Executor:
        self.made.append(self.make())
        return self.made[-1]

    def order(self, script: Script, *, grace_ms: int = 2_000, epoch: int = 1) -> JobOrder:
        key = AttemptKey(attempt_id=f"attempt_{next(_numbers)}", epoch=epoch)
        if self.world is not None:
            self.world.scripts[key.attempt_id] = script
        return JobOrder(
            key=key,
            image=TINY,
            command=self.command(script),
            env={},
            gpu_uuids=(),
            isolation_min=Isolation.PROCESS,
            stop_grace_ms=grace_ms,
            run_ms_max=86_400_000,
            memory_bytes=0,
            cpu_milli=0,
        )

    async def begin(self, order: JobOrder, paid_through_ms: int = FOREVER_PAID_MS) -> None:
        await self.executor.prepare(order, lambda _: None)
        await self.executor.start(order, paid_through_ms)


@pytest.fixture(
    params=["fake", "process", pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.slow])]
)
def bench(request: pytest.FixtureRequest, tmp_path: Path):
    match request.param:
        case "fake":
            world = FakeWorld()
            made = Bench(lambda: FakeExecutor(world, CLOCK), lambda _: ("fake",), world)
        case "process":
            made = Bench(lambda: ProcessExecutor(tmp_path / "runs", CLOCK), shell)
        case _:
            engine: Engine = request.getfixturevalue("docker_engine")
            tiny_image(request.getfixturevalue("docker_client"))
            made = Bench(lambda: docker_executor(engine, tmp_path), shell)
    yield made
    asyncio.run(_clear(made))


def docker_executor(
    engine: Engine, folder: Path, firewall: Firewall | None = None, **more: Any
) -> DockerExecutor:
    policy = HostPolicy(
        host_id=f"host_{folder.name}",
        boot_id=CLOCK.boot_id,
        cpu_count=2,
        memory_bytes=4 << 30,
        gpu_count=4,
        workspace_bytes=64 << 20,
        tmp_bytes=64 << 20,
        pids_max=256,
        nofile_max=1_024,
        images=ImagePolicy(reserve_bytes=0, local_images=True),
    )
    return DockerExecutor(
        folder=folder / "runs",
        docker_host=engine.base_url,
        policy=policy,
        clock=CLOCK,
        firewall=firewall,
        **more,
    )


async def _clear(bench: Bench) -> None:
    executor = bench.again()
    for key in await executor.held():
        await executor.destroy(key)
    assert not await executor.held()
    for made in bench.made:
        await made.close()


def shell(script: Script) -> tuple[str, ...]:
    """A command that does what the script says."""
    if script.refusal is not None:
        return ("/no/such/program",)
    lines = []
    if script.run_ms is None:
        on_stop = "''" if script.exit_code_on_stop is None else f"'exit {script.exit_code_on_stop}'"
        lines.append(f"trap {on_stop} TERM")
    for stream, data in script.output:
        octal = "".join(f"\\{byte:03o}" for byte in data)
        lines.append(f"printf '{octal}'" + (" >&2" if stream is ERR else ""))
    if script.run_ms is None:
        lines.append("while :; do sleep 0.05; done")
    elif script.run_ms:
        lines.append(f"sleep {script.run_ms / 1000}")
    return ("sh", "-c", "\n".join([*lines, f"exit {script.exit_code}"]))


async def collect(executor: Executor, order: JobOrder, offset: int = 0) -> dict[OutputStream, bytearray]:
    """All output from the offset on; checks that there is no hole in it."""
    found = {OUT: bytearray(), ERR: bytearray()}
    reached = offset
    async with asyncio.timeout(DEADLINE_S):
        async for chunks in executor.output(order, offset):
            for chunk in chunks:
                assert chunk.offset == reached
                assert 0 < len(chunk.data) <= 65_536
                found[chunk.stream] += chunk.data
                reached += len(chunk.data)
            await executor.discard_output(order, reached)
    return found


async def end_of(executor: Executor, order: JobOrder) -> RunEnd:
    async with asyncio.timeout(DEADLINE_S):
        return await executor.wait(order)


def scenario(test):
    """Runs an async test."""

    def run(bench: Bench) -> None:
        asyncio.run(test(bench))

    return run


@scenario
async def test_output_and_exit_code_are_the_commands_own(bench):
    hard = b"\x00\xff\xfe \r\n\n" + "ü".encode() + b"\x1b[31m no line feed"
    order = bench.order(Script(output=((OUT, hard), (ERR, b"oh\n"), (OUT, b"!")), exit_code=7))
    await bench.begin(order)
    assert await collect(bench.executor, order) == {OUT: hard + b"!", ERR: b"oh\n"}
    end = await end_of(bench.executor, order)
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 7)


@scenario
async def test_output_can_be_taken_from_any_byte(bench):
    order = bench.order(Script(output=((OUT, b"0123456789"),)))
    await bench.begin(order)
    await end_of(bench.executor, order)
    for offset in (0, 1, 9, 10):
        assert (await collect(bench.again(), order, offset))[OUT] == b"0123456789"[offset:]


@scenario
async def test_it_starts_once_however_often_it_is_asked(bench):
    order = bench.order(Script(run_ms=None))
    await bench.begin(order)
    first = await bench.executor.find(order)
    assert first is not None
    assert await bench.executor.start(order, FOREVER_PAID_MS) == first
    other = bench.again()
    await other.prepare(order, lambda _: None)
    assert await other.start(order, FOREVER_PAID_MS) == first
    assert await other.find(order) == first
    assert await other.is_running(order)


@scenario
async def test_what_was_never_started_is_not_found(bench):
    order = bench.order(Script())
    assert await bench.executor.find(order) is None
    await bench.executor.prepare(order, lambda _: None)
    assert await bench.executor.find(order) is None
    assert order.key in await bench.executor.held()


@scenario
async def test_a_restarted_agent_finds_what_ended_meanwhile(bench):
    order = bench.order(Script(output=((OUT, b"last words\n"),), run_ms=300, exit_code=3))
    await bench.begin(order)
    await bench.executor.close()
    observer = bench.again()
    end = await end_of(observer, order)
    assert end.exit_code == 3
    assert end.run_ms is not None
    later = bench.again()
    assert await end_of(later, order) == end
    assert (await collect(later, order))[OUT] == b"last words\n"
    assert not await later.is_running(order)


@scenario
async def test_the_run_time_is_the_commands_and_not_more(bench):
    order = bench.order(Script(run_ms=400))
    before_ms = CLOCK.boot_ms()
    await bench.begin(order)
    run = await bench.executor.find(order)
    assert run is not None
    assert before_ms <= run.start_boot_ms <= CLOCK.boot_ms()
    end = await end_of(bench.executor, order)
    assert end.run_ms is not None
    # Containers are told to be started when they have run for some milliseconds already.
    assert 300 <= end.run_ms <= CLOCK.boot_ms() - run.start_boot_ms


@scenario
async def test_a_command_that_listens_ends_by_itself(bench):
    order = bench.order(_ready_until_stopped(9), grace_ms=20_000)
    await bench.begin(order)
    await _first_output(bench.executor, order)
    await bench.executor.stop(order, order.stop_grace_ms)
    end = await end_of(bench.executor, order)
    assert end.exit_code == 9
    await bench.executor.stop(order, order.stop_grace_ms)  # again is nothing


@scenario
async def test_a_command_that_does_not_listen_is_killed(bench):
    order = bench.order(_ready_until_stopped(None), grace_ms=200)
    await bench.begin(order)
    await _first_output(bench.executor, order)
    await bench.again().stop(order, order.stop_grace_ms)
    end = await end_of(bench.executor, order)
    assert end.exit_code == 137


@scenario
async def test_it_stops_by_itself_when_what_is_paid_is_used_up(bench):
    order = bench.order(Script(run_ms=None), grace_ms=0)
    await bench.begin(order, paid_through_ms=300)
    await bench.executor.close()
    await asyncio.sleep(0)
    end = await end_of(bench.again(), order)
    assert end.reason is EndReason.PAID_THROUGH
    assert end.run_ms is not None
    assert end.run_ms >= 300


@scenario
async def test_paying_more_moves_the_moment(bench):
    order = bench.order(Script(run_ms=700, exit_code=5))
    await bench.begin(order, paid_through_ms=400)
    await bench.executor.renew(order, FOREVER_PAID_MS)
    await bench.executor.renew(order, 1)  # it only ever grows
    end = await end_of(bench.executor, order)
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 5)


@scenario
async def test_a_command_that_is_not_there_is_the_buyers_fault(bench):
    refusal = StartError(EndReason.COMMAND_UNSTARTABLE, "no such program")
    order = bench.order(Script(refusal=refusal))
    try:
        await bench.begin(order)
    except StartError as error:
        reason, detail = error.reason, str(error)
    else:
        # A container's init is started and only then finds out.
        end = await end_of(bench.executor, order)
        reason, detail = end.reason, end.detail
        assert (end.run_ms, end.exit_code) == (0, None)
    assert reason is EndReason.COMMAND_UNSTARTABLE
    assert "no such" in detail.lower()


@scenario
async def test_destroying_leaves_nothing_and_may_be_repeated(bench):
    order = bench.order(Script(run_ms=None, exit_code_on_stop=None))
    await bench.begin(order)
    for _ in range(2):
        await bench.again().destroy(order.key)
        assert order.key not in await bench.executor.held()
    assert await bench.executor.find(order) is None


@scenario
async def test_epochs_are_kept_apart(bench):
    first = bench.order(Script(run_ms=None))
    await bench.begin(first)
    key = AttemptKey(attempt_id=first.key.attempt_id, epoch=2)
    second = JobOrder(**{**first.__dict__, "key": key})
    assert await bench.executor.find(second) is None
    await bench.begin(second)
    await bench.executor.destroy(first.key)
    assert await bench.executor.is_running(second)


def _ready_until_stopped(exit_code: int | None) -> Script:
    return Script(run_ms=None, output=((OUT, b"ready\n"),), exit_code_on_stop=exit_code)


async def _first_output(executor: Executor, order: JobOrder) -> None:
    """Returns when the command has said that it is ready."""
    async with asyncio.timeout(DEADLINE_S):
        async for _ in executor.output(order, 0):
            return


@pytest.mark.parametrize("kind", ["process", pytest.param("docker", marks=[pytest.mark.docker])])
@pytest.mark.slow
def test_much_output_waits_for_its_reader_and_arrives_whole(kind, request, tmp_path):
    """Nobody reads at first: the command must wait, not fill the disk. Long lines, both streams."""
    if kind == "process":
        executor: Executor = ProcessExecutor(tmp_path / "runs", CLOCK)
    else:
        tiny_image(request.getfixturevalue("docker_client"))
        executor = docker_executor(request.getfixturevalue("docker_engine"), tmp_path)
    writes = f"head -c {40 << 20} /dev/zero | tr '\\0' x; echo end >&2"
    bench = Bench(lambda: executor, lambda _: ("sh", "-c", writes))

    async def run() -> None:
        order = bench.order(Script())
        await bench.begin(order)
        folder = tmp_path / "runs" / str(order.key) / "output"
        await asyncio.to_thread(
            wait_until, lambda: sum(1 for _ in folder.iterdir()) >= 8, "the backlog is full"
        )
        assert await executor.is_running(order)
        found = await collect(executor, order)
        assert hashlib.sha256(found[OUT]).digest() == hashlib.sha256(b"x" * (40 << 20)).digest()
        assert found[ERR] == b"end\n"
        assert sum(file.stat().st_size for file in folder.iterdir()) < 12 << 20
        await _clear(bench)

    asyncio.run(run())
