"""A GPU that fails under a job: the end says so, nobody pays for what comes after, nobody else gets it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent import pipeline
from agent.domain.attempt import AttemptReport, AttemptState, EndReason
from agent.domain.gpu import GpuFault, XidSeen
from agent.domain.health import HEALTHY
from agent.executor.fake import FakeExecutor, Script
from agent.executor.ports import RunEnd
from agent.gpu.watch import GpuWatch
from agent.runner import Runner
from runtime.clock import SystemClock
from tests.integration.test_agent_runner import Host
from tests.support.orders import desired

RUNS_ON = Script(run_ms=None)


@pytest.fixture
def tell(tmp_path: Path):
    def run(story: Callable[[Host, Runner], Awaitable[None]]) -> None:
        async def whole() -> None:
            host = Host(tmp_path)
            await host.agent(lambda runner: story(host, runner))

        asyncio.run(whole())

    return run


def report(runner: Runner, attempt_id: str = "a") -> AttemptReport:
    return next(each for each in runner.reports() if each.key.attempt_id == attempt_id)


def watch_of(host: Host) -> GpuWatch:
    assert host.watch is not None
    return host.watch


async def look_until(host: Host, runner: Runner, condition: Callable[[], bool]) -> None:
    """As the agent's loop does, only more often: a look comes when it is due."""
    async with asyncio.timeout(10):
        while not condition():
            await watch_of(host).pass_once(runner)
            await SystemClock().sleep_ms(20)


def is_stopping(runner: Runner) -> bool:
    return report(runner).state is not AttemptState.RUNNING


async def run_on_g(host: Host, runner: Runner, script: Script = RUNS_ON) -> None:
    host.world.scripts["a"] = script
    await runner.apply([desired("a", gpu_uuids=("g",))])
    await host.until(lambda: len(runner.usage_after(runner.keys()[0], 0, 9)) >= 2)


async def end_of(host: Host, runner: Runner, attempt_id: str = "a") -> AttemptReport:
    await host.until(lambda: report(runner, attempt_id).state is AttemptState.ENDED)
    return report(runner, attempt_id)


def test_a_gpu_lost_under_a_job_ends_it_and_gets_no_other(tell):
    async def story(host: Host, runner: Runner) -> None:
        await run_on_g(host, runner, Script(run_ms=None, exit_code_on_stop=None))
        host.gpus.faults["g"] = GpuFault.LOST
        await look_until(host, runner, lambda: is_stopping(runner))
        stopping = report(runner)
        assert stopping.state is AttemptState.STOPPING
        ended = await end_of(host, runner)
        ending = ended.ending
        assert ending is not None
        assert ending.reason is EndReason.GPU_LOST
        assert "GPU g is lost: the driver has lost it" in ending.detail
        # It did not listen, so that it ran on for its grace period: none of that is metered.
        records = runner.usage_after(ended.key, 0, 99)
        assert records[-1].end_ms == ending.run_ms
        assert ending.run_ms <= stopping.run_ms
        await runner.apply([desired("b", gpu_uuids=("g",))])
        refused = (await end_of(host, runner, "b")).ending
        assert refused is not None
        assert (refused.reason, refused.run_ms) == (EndReason.START_FAILED, 0)
        assert "lost" in refused.detail
        del host.gpus.faults["g"]
        await look_until(host, runner, lambda: watch_of(host).health("g") == HEALTHY)
        await runner.apply([desired("c", gpu_uuids=("g",))])
        await host.until(lambda: report(runner, "c").state is AttemptState.RUNNING)

    tell(story)


def test_a_command_that_fails_because_its_gpu_failed_is_not_blamed(tell):
    async def story(host: Host, runner: Runner) -> None:
        await run_on_g(host, runner, Script(run_ms=600, exit_code=1))
        host.gpus.xids = [XidSeen(uuid="g", number=94)]
        ending = (await end_of(host, runner)).ending
        assert ending is not None
        assert (ending.reason, ending.exit_code) == (EndReason.GPU_LOST, 1)
        assert "XID 94" in ending.detail

    tell(story)


def test_a_command_that_fails_by_its_own_fault_is(tell):
    async def story(host: Host, runner: Runner) -> None:
        await run_on_g(host, runner, Script(run_ms=600, exit_code=1))
        host.gpus.xids = [XidSeen(uuid="g", number=31)]
        ending = (await end_of(host, runner)).ending
        assert ending is not None
        assert (ending.reason, ending.exit_code) == (EndReason.EXITED, 1)

    tell(story)


def test_what_can_not_be_killed_is_given_up_and_its_gpu_with_it(tell, monkeypatch):
    """A process that hangs in the driver of a lost GPU answers no signal."""
    monkeypatch.setattr(pipeline, "_UNDEAD_MS", 100)

    async def for_ever(self: FakeExecutor, order: object) -> RunEnd:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(FakeExecutor, "wait", for_ever)

    async def story(host: Host, runner: Runner) -> None:
        host.world.scripts["a"] = Script(run_ms=None, exit_code_on_stop=None)
        await runner.apply([desired("a", gpu_uuids=("g",), stop_grace_ms=50)])
        await host.until(lambda: len(runner.usage_after(runner.keys()[0], 0, 9)) >= 2)
        host.gpus.faults["g"] = GpuFault.LOST
        await look_until(host, runner, lambda: is_stopping(runner))
        ending = (await end_of(host, runner)).ending
        assert ending is not None
        assert ending.reason is EndReason.GPU_LOST
        assert "can't be ended" in ending.detail
        assert ending.exit_code is None

    tell(story)


def test_a_restarted_agent_still_meters_nothing_after_the_loss(tell, tmp_path):
    async def story(host: Host, runner: Runner) -> None:
        await run_on_g(host, runner, Script(run_ms=None, exit_code_on_stop=None))
        host.gpus.faults["g"] = GpuFault.LOST
        await look_until(host, runner, lambda: is_stopping(runner))
        assert report(runner).state is AttemptState.STOPPING

    async def after(host: Host) -> None:
        async def again(runner: Runner) -> None:
            ended = await end_of(host, runner)
            assert ended.ending is not None
            assert ended.ending.reason is EndReason.GPU_LOST
            assert ended.ending.run_ms == runner.usage_after(ended.key, 0, 99)[-1].end_ms

        await host.agent(again)

    async def whole() -> None:
        host = Host(tmp_path)
        await host.agent(lambda runner: story(host, runner))
        await after(host)

    asyncio.run(whole())


def test_the_next_job_waits_for_what_the_one_before_left(tell):
    async def story(host: Host, runner: Runner) -> None:
        await run_on_g(host, runner, Script(run_ms=600))
        host.gpus.processes["g"] = (4711,)
        await end_of(host, runner)
        await runner.apply([desired("b", gpu_uuids=("g",))])
        await host.until(lambda: "4711" in report(runner, "b").detail)
        assert report(runner, "b").state is AttemptState.PREPARING
        del host.gpus.processes["g"]
        await host.until(lambda: report(runner, "b").state is not AttemptState.PREPARING)

    tell(story)
