"""Dockerd ended and started again under a job, in each of its ways: what is told of the job is the truth."""

import asyncio
import os
import signal
from dataclasses import dataclass

import pytest

from agent.domain.attempt import AttemptKey, EndReason, Isolation, JobOrder
from agent.executor.docker import DockerExecutor
from agent.executor.ports import RunEnd
from runtime.clock import SystemClock
from tests.contract.test_executor import docker_executor
from tests.rig.dockerd import Engine, running_engine
from tests.rig.fixtures import parts_needed
from tests.rig.images import TINY, tiny_image

pytestmark = [pytest.mark.docker, pytest.mark.slow]
CLOCK = SystemClock()


@dataclass(frozen=True, kw_only=True)
class Way:
    """How dockerd is ended, and what becomes of what runs."""

    name: str
    number: signal.Signals
    live_restore: bool


WAYS = [
    Way(name="kept_terminated", number=signal.SIGTERM, live_restore=True),
    Way(name="kept_killed", number=signal.SIGKILL, live_restore=True),
    Way(name="not_kept_terminated", number=signal.SIGTERM, live_restore=False),
    Way(name="not_kept_killed", number=signal.SIGKILL, live_restore=False),
]


@pytest.fixture(scope="module")
def engine():
    with parts_needed(), running_engine() as own, own.client() as client:
        tiny_image(client)
        yield own


def test_an_engine_that_comes_back_ends_no_job_by_a_lie(engine: Engine, tmp_path):
    """One job for each way, on one engine: the last word is its true end, or that the host lost it."""
    ends = {way.name: asyncio.run(_story(engine, way, docker_executor(engine, tmp_path))) for way in WAYS}
    for way in WAYS:
        end, seen_ms = ends[way.name]
        if way.live_restore:
            assert (end.reason, end.exit_code) == (EndReason.EXITED, 7), way.name
            assert "engine was restarted" in end.detail
        else:
            assert (end.reason, end.exit_code) == (EndReason.HOST_LOST, None), way.name
        # Never more than passed from before its start until its end was told.
        assert end.run_ms is not None
        assert 0 < end.run_ms <= seen_ms, way.name


def test_what_an_engine_ends_while_it_still_answers_is_lost_by_the_host(engine: Engine, tmp_path):
    """Of two jobs one is gone at once, the other takes its time; until then the engine answers, and says of
    the first that it ended with 143, as if by itself (found by chaos, seed 2). Of a third nobody is awake to
    ask before the next engine answers, which knows only how it ended (found by chaos, seed 3)."""
    engine.set_live_restore(on=False)
    for end in asyncio.run(_two_of_three(engine, docker_executor(engine, tmp_path))):
        assert (end.reason, end.exit_code) == (EndReason.HOST_LOST, None), end


async def _two_of_three(engine: Engine, executor: DockerExecutor) -> list[RunEnd]:
    wait = "while :; do sleep 0.05; done"
    orders = [_order("quick", f"trap 'exit 143' TERM; echo ready; {wait}"),
              _order("asleep", f"trap 'exit 143' TERM; echo ready; {wait}"),
              _order("slow", f"trap '' TERM; echo ready; {wait}")]  # fmt: skip
    try:
        for order in orders:
            await executor.prepare(order, lambda _: None)
            await executor.start(order, 600_000)
            first = await anext(executor.output(order, 0))
            assert first[0].data == b"ready\n"
        asleep = executor._runs.supervisor_pid(orders[1].key)
        assert asleep is not None
        os.kill(asleep, signal.SIGSTOP)
        engine.restart(signal.SIGTERM)
        os.kill(asleep, signal.SIGCONT)
        async with asyncio.timeout(60):
            return [await executor.wait(order) for order in orders[:2]]
    finally:
        for order in orders:
            await executor.destroy(order.key)
        await executor.close()


def test_a_job_that_ends_itself_by_a_signal_has_ended_itself(engine: Engine, tmp_path):
    executor = docker_executor(engine, tmp_path)

    async def story() -> RunEnd:
        order = _order("itself", "kill -TERM $$; exit 1")
        try:
            await executor.prepare(order, lambda _: None)
            await executor.start(order, 600_000)
            async with asyncio.timeout(60):
                return await executor.wait(order)
        finally:
            await executor.destroy(order.key)
            await executor.close()

    end = asyncio.run(story())
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 143), end


def _order(name: str, script: str) -> JobOrder:
    return JobOrder(
        key=AttemptKey(attempt_id=name, epoch=1),
        image=TINY,
        command=("sh", "-c", script),
        env={},
        gpu_uuids=(),
        isolation_min=Isolation.CONTAINER,
        stop_grace_ms=500,
        run_ms_max=600_000,
        memory_bytes=0,
        cpu_milli=0,
    )


async def _story(engine: Engine, way: Way, executor: DockerExecutor) -> tuple[RunEnd, int]:
    engine.set_live_restore(on=way.live_restore)
    go = "/workspace/go"
    script = f"echo ready; until test -e {go}; do sleep 0.05; done; echo on; exit 7"
    order = _order(way.name, script)
    began_ms = CLOCK.boot_ms()
    await executor.prepare(order, lambda _: None)
    run = await executor.start(order, 600_000)
    try:
        first = await anext(executor.output(order, 0))
        assert first[0].data == b"ready\n"
        # Here, not in a thread: the engine goes with the thread that has started it.
        engine.restart(way.number)
        if way.live_restore:
            engine.touch(run.run_id, go)
        async with asyncio.timeout(60):
            end = await executor.wait(order)
    finally:
        await executor.destroy(order.key)
        await executor.close()
    return end, CLOCK.boot_ms() - began_ms
