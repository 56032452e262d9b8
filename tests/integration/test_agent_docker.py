"""A real agent, a real engine, and GPUs of which the driver's stand-in tells: killed under a running job."""

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from agent.executor.supervisor.container import _between_ms
from agent.status import agent_pid
from tests.integration.test_agent import CLOCK, check_complete, numbered
from tests.rig.dockerd import Engine
from tests.rig.gpus import FOUR_GPUS
from tests.rig.images import TINY, tiny_image
from tests.rig.nvml.build import NvmlStub
from tests.rig.parts import wait_until
from tests.support.agent_process import AgentProcess, supervisors
from tests.support.fake_coordinator import FakeCoordinator, desired_attempt
from usance.v1 import types_pb2

pytestmark = [pytest.mark.docker, pytest.mark.nvml, pytest.mark.slow]

CONTAINER = types_pb2.ISOLATION_CONTAINER


@pytest.fixture
def tell(tmp_path: Path, docker_engine: Engine, docker_client, nvml_stub: NvmlStub):
    """Runs a story with a coordinator and an agent that offers two GPUs in containers."""
    tiny_image(docker_client)
    nvml_stub.state.add_gpu(FOUR_GPUS[0])
    nvml_stub.state.add_gpu(FOUR_GPUS[1])
    config = tmp_path / "agent.toml"
    config.write_text("local_images = true\ndisk_reserve_gb = 0\n")
    engine = ("--executor", "docker", "--docker-host", docker_engine.base_url)
    flags = ("--config", str(config), *engine, "--price", "0.5")

    def run(story) -> None:
        async def whole() -> None:
            coordinator = FakeCoordinator()
            await coordinator.start()
            agent = AgentProcess(tmp_path / "state", flags, nvml_stub.env())
            try:
                await agent.enroll(coordinator.token)
                await agent.start()
                await coordinator.until(lambda: bool(coordinator.hellos), "the agent says hello")
                await story(coordinator, agent)
            except BaseException:
                print(agent.log_text())
                raise
            finally:
                await agent.clear_up()
                await coordinator.stop()
            assert coordinator.faults == []
            assert "Traceback" not in agent.log_text()

        asyncio.run(whole())

    return run


def job(script: str, attempt_id: str = "attempt_1", gpu: int = 0, **more):
    return desired_attempt(
        *("sh", "-c", script),
        attempt_id=attempt_id,
        gpu_uuids=(FOUR_GPUS[gpu].uuid,),
        image=TINY,
        isolation=CONTAINER,
        **more,
    )


COUNTING = "i=0; until test -e /tmp/go; do i=$((i+1)); echo line $i; sleep 0.02; done; echo $i >&2; exit 7"


def test_ten_kills_lose_no_line_and_no_moment(tell, docker_engine, docker_client):
    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        facts = coordinator.hellos[0].facts
        assert facts.isolation == CONTAINER
        assert facts.executor.startswith("Docker Engine ")
        assert [(g.uuid, g.model, g.simulated) for g in facts.gpus] == [
            (FOUR_GPUS[n].uuid, "NVIDIA GeForce RTX 4090", False) for n in (0, 1)
        ]
        taken = coordinator.want(job("ls /dev/rig-gpus >&2; " + COUNTING))
        await coordinator.until(lambda: bool(taken.stdout), "output comes")
        for kills in range(10):
            await agent.kill()
            await agent.start()
            if kills % 2:
                seen = len(taken.stdout)
                await coordinator.until(lambda seen=seen: len(taken.stdout) > seen, "more comes")  # type: ignore[misc]
            else:  # in the middle of its beginning
                begun = partial(lambda pid: agent_pid(agent.state_dir) == pid, agent.pid)
                await asyncio.to_thread(wait_until, begun, "it has its folder")
        docker_engine.touch(_only(docker_client), "/tmp/go")
        await coordinator.until(lambda: taken.complete, "the job is complete", deadline_s=60)
        last = check_complete(taken)
        assert (last.exit_code, last.end_reason) == (7, types_pb2.END_REASON_EXITED)
        uuid, count = bytes(taken.stderr).decode().split()
        assert uuid == FOUR_GPUS[0].uuid
        assert bytes(taken.stdout) == numbered(int(count))
        containers = {report.container_id for report in taken.reports if report.container_id}
        assert containers == {_only(docker_client)}
        state = docker_client.api.inspect_container(last.container_id)["State"]
        assert state["ExitCode"] == 7
        # By the engine's own times, not a second of it is missing, and nothing is there twice.
        ran_ms = _between_ms(state["StartedAt"], state["FinishedAt"])
        assert ran_ms - 1_000 < last.run_ms <= ran_ms
        coordinator.drop("attempt_1")
        await coordinator.until(lambda: not coordinator.beats[-1].attempts, "the attempt is forgotten")
        left = partial(docker_client.containers.list, all=True, ignore_removed=True)
        await asyncio.to_thread(wait_until, lambda: not left(), "its container is removed")

    tell(story)


def test_the_end_is_true_though_agent_and_supervisor_were_dead(tell, docker_client):
    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        taken = coordinator.want(job("echo one; sleep 1; exit 5"))
        await coordinator.until(lambda: bytes(taken.stdout) == b"one\n", "it runs")
        await agent.kill()
        for pid in supervisors(agent.state_dir):
            os.kill(pid, signal.SIGKILL)
        container = docker_client.containers.get(taken.last.container_id or _only(docker_client))
        await asyncio.to_thread(container.wait)
        state = docker_client.api.inspect_container(container.id)["State"]
        await agent.start()
        await coordinator.until(lambda: taken.complete, "the end is told")
        last = check_complete(taken)
        assert (last.exit_code, last.end_reason) == (5, types_pb2.END_REASON_EXITED)
        # As the engine has it, and not a moment of the time in which it was dead already.
        assert 0 < last.run_ms <= _between_ms(state["StartedAt"], state["FinishedAt"])

    tell(story)


def _only(client) -> str:
    (container,) = client.containers.list(all=True)
    return str(container.id)


def test_a_container_is_stopped_at_its_paid_through_time_without_an_agent(tell, docker_client):
    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        endless = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
        asked_ms = CLOCK.boot_ms()
        taken = coordinator.want(job(endless, paid_through_ms=2_500, grace_ms=300))
        await coordinator.until(lambda: taken.last.run_ms > 0, "it runs")
        await agent.kill()
        running = partial(docker_client.containers.list)
        await asyncio.to_thread(wait_until, lambda: not running(), "the container has ended")
        gone_ms = CLOCK.boot_ms()
        await agent.start()
        await coordinator.until(lambda: taken.complete, "the end is told")
        last = check_complete(taken)
        assert last.end_reason == types_pb2.END_REASON_PAID_THROUGH
        assert 2_500 <= last.run_ms <= gone_ms - asked_ms

    tell(story)


def test_every_end_has_its_reason(tell):
    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        wanted = {
            "memory": job("tail /dev/zero", "memory", gpu=0),
            "image": desired_attempt("x", attempt_id="image", image="NOT//AN IMAGE", isolation=CONTAINER),
            "command": desired_attempt("/nope", attempt_id="command", image=TINY, isolation=CONTAINER),
        }
        wanted["memory"].spec.memory_bytes = 64 << 20
        taken = {name: coordinator.want(attempt) for name, attempt in wanted.items()}
        for each in taken.values():
            await coordinator.until(partial(lambda t: t.complete, each), "it ends")
        assert {name: each.last.end_reason for name, each in taken.items()} == {
            "memory": types_pb2.END_REASON_OUT_OF_MEMORY,
            "image": types_pb2.END_REASON_IMAGE_UNAVAILABLE,
            "command": types_pb2.END_REASON_COMMAND_UNSTARTABLE,
        }
        assert all(each.last.detail for each in taken.values())
        for name in ("image", "command"):
            last = check_complete(taken[name])
            assert (last.run_ms, last.usage_number_last) == (0, 0)
            assert not last.HasField("exit_code")

    tell(story)
