"""The driver hangs under a real agent: its link and its jobs don't."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from tests.integration.test_agent import SLOWLY, check_complete
from tests.rig.gpus import FOUR_GPUS
from tests.rig.nvml.build import NvmlStub
from tests.support.agent_process import AgentProcess
from tests.support.fake_coordinator import FakeCoordinator, desired_attempt
from usance.v1 import types_pb2

pytestmark = [pytest.mark.nvml]

FLAGS = ("--executor", "process", "--allow-process-executor", "--price", "0.50")


def test_beats_and_jobs_go_on_while_the_driver_hangs(tmp_path: Path, nvml_stub: NvmlStub):
    nvml_stub.state.add_gpu(FOUR_GPUS[0])
    nvml_stub.state.add_gpu(FOUR_GPUS[1])

    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        await agent.enroll(coordinator.token)
        await agent.start()
        await coordinator.until(lambda: bool(coordinator.hellos), "the agent says hello")
        taken = coordinator.want(
            desired_attempt("sh", "-c", SLOWLY, attempt_id="a", gpu_uuids=(FOUR_GPUS[0].uuid,))
        )
        await coordinator.until(lambda: b"ready" in taken.stdout, "it runs")
        nvml_stub.state.delay_gpu(0, 3_600_000)
        nvml_stub.state.delay_gpu(1, 3_600_000)
        beats = len(coordinator.beats)
        await coordinator.until(partial(lambda: len(coordinator.beats) >= beats + 8), "beats go on")
        assert taken.last.state == types_pb2.ATTEMPT_STATE_RUNNING
        coordinator.desired["a"].stop_reason = types_pb2.END_REASON_CANCELLED
        await coordinator.until(lambda: taken.complete, "it has ended")
        last = check_complete(taken)
        assert (last.end_reason, last.exit_code) == (types_pb2.END_REASON_CANCELLED, 3)
        assert await agent.terminate() == 0

    async def whole() -> None:
        coordinator = FakeCoordinator()
        await coordinator.start()
        agent = AgentProcess(tmp_path / "state", FLAGS, nvml_stub.env())
        try:
            await story(coordinator, agent)
        except BaseException:
            print(agent.log_text())
            raise
        finally:
            await agent.clear_up()
            await coordinator.stop()
        assert coordinator.faults == []

    asyncio.run(whole())
