"""A real agent, a real engine, the driver's stand-in: slices are sold one by one, a lost GPU ends its job."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from tests.integration.test_agent import check_complete
from tests.rig.dockerd import Engine
from tests.rig.gpus import CAPS_MAJOR, FOUR_GPUS, NVIDIA_MAJOR, Gpu
from tests.rig.images import TINY, tiny_image
from tests.rig.leftovers import device_cgroups_are_files
from tests.rig.nvml.build import NvmlStub
from tests.rig.nvml.state import DATACENTRE_CARD, Fault
from tests.support.agent_process import AgentProcess
from tests.support.fake_coordinator import FakeCoordinator, desired_attempt
from tests.support.need import need
from usance.v1 import types_pb2

pytestmark = [pytest.mark.docker, pytest.mark.nvml, pytest.mark.slow]

CONTAINER = types_pb2.ISOLATION_CONTAINER
BOARD = FOUR_GPUS[1]
SLICES = (Gpu(uuid="MIG-a", minor=BOARD.minor, cap=21), Gpu(uuid="MIG-b", minor=BOARD.minor, cap=30))
SHOW = "ls /dev/rig-gpus; ls /dev/nvidia-caps /dev | grep nvidia; echo ready; while :; do sleep 0.1; done"


@pytest.fixture
def tell(tmp_path: Path, docker_engine: Engine, docker_client, nvml_stub: NvmlStub):
    """Runs a story with a coordinator and an agent that offers one GPU whole and another in two slices."""
    tiny_image(docker_client)
    docker_engine.set_gpus([FOUR_GPUS[0], *SLICES])
    nvml_stub.state.add_gpu(FOUR_GPUS[0])
    nvml_stub.state.add_gpu(BOARD, DATACENTRE_CARD)
    for index, slice_ in enumerate(SLICES):
        nvml_stub.state.add_slice(1, index, slice_.uuid, name="A100 MIG 3g.40gb", memory_bytes=40 << 30)
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
                await story(coordinator)
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


def job(script: str, attempt_id: str, uuid: str):
    return desired_attempt(
        *("sh", "-c", script),
        attempt_id=attempt_id,
        gpu_uuids=(uuid,),
        image=TINY,
        isolation=CONTAINER,
        grace_ms=300,
    )


def devices_of(client, container_id: str) -> set[tuple[int, int]]:
    """What the kernel lets the container open of what we look for."""
    pid = client.api.inspect_container(container_id)["State"]["Pid"]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "devices" in controllers.split(","):
            allowed = Path(f"/sys/fs/cgroup/devices{path}/devices.list").read_text()
    pairs = [line.split()[1].split(":") for line in allowed.splitlines()]
    numbers = {(int(major), int(minor)) for major, minor in pairs if "*" not in (major, minor)}
    return {(major, minor) for major, minor in numbers if major in (NVIDIA_MAJOR, CAPS_MAJOR)}


def test_two_slices_of_a_gpu_are_sold_and_each_job_opens_only_its_own(tell, docker_client):
    need(
        device_cgroups_are_files(),
        "the devices controller of cgroup v1",
        "boot with systemd.unified_cgroup_hierarchy=0",
    )

    async def story(coordinator: FakeCoordinator) -> None:
        offered = coordinator.hellos[0].facts.gpus
        assert [(gpu.uuid, gpu.board_uuid) for gpu in offered] == [
            (FOUR_GPUS[0].uuid, ""),
            ("MIG-a", BOARD.uuid),
            ("MIG-b", BOARD.uuid),
        ]
        assert offered[1].vram_bytes == 40 << 30
        taken = [coordinator.want(job(SHOW, f"attempt_{s.uuid[-1]}", s.uuid)) for s in SLICES]
        await coordinator.until(lambda: all(b"ready" in t.stdout for t in taken), "both run")
        for one, slice_ in zip(taken, SLICES, strict=True):
            shown = bytes(one.stdout).decode().split()
            nodes = {line for line in shown if line.startswith("nvidia")}
            assert shown[0] == slice_.uuid
            assert nodes == {f"nvidia{BOARD.minor}", "nvidia-caps", f"nvidia-cap{slice_.cap}"}
            container_id = one.last.container_id
            assert devices_of(docker_client, container_id) == {
                (NVIDIA_MAJOR, BOARD.minor),
                (CAPS_MAJOR, slice_.cap),
            }
        # The GPU of which they are slices is not to be had whole.
        whole = coordinator.want(job("true", "attempt_whole", BOARD.uuid))
        await coordinator.until(lambda: whole.ended, "it is refused")
        assert whole.last.end_reason == types_pb2.END_REASON_START_FAILED
        assert "no GPU" in whole.last.detail

    tell(story)


def test_a_gpu_lost_in_the_middle_of_a_job_ends_it_and_is_quarantined_until_it_is_back(tell, nvml_stub):
    def healths(coordinator: FakeCoordinator) -> list[int]:
        return [gpu.health for gpu in coordinator.hellos[-1].facts.gpus]

    async def story(coordinator: FakeCoordinator) -> None:
        lost, well = types_pb2.GPU_HEALTH_LOST, types_pb2.GPU_HEALTH_HEALTHY
        taken = coordinator.want(job(SHOW, "attempt_1", FOUR_GPUS[0].uuid))
        beside = coordinator.want(job(SHOW, "attempt_2", "MIG-a"))
        await coordinator.until(lambda: b"ready" in beside.stdout and b"ready" in taken.stdout, "both run")
        assert healths(coordinator) == [well, well, well]
        nvml_stub.state.fail_gpu(0, Fault.GPU_IS_LOST)
        await coordinator.until(lambda: taken.complete, "the job has ended")
        last = check_complete(taken)
        assert last.end_reason == types_pb2.END_REASON_GPU_LOST
        assert "lost" in last.detail
        await coordinator.until(lambda: healths(coordinator) == [lost, well, well], "the loss is told")
        assert coordinator.hellos[-1].facts.gpus[0].health_reason
        assert beside.last.state == types_pb2.ATTEMPT_STATE_RUNNING
        again = coordinator.want(job("true", "attempt_3", FOUR_GPUS[0].uuid))
        await coordinator.until(lambda: again.ended, "the next job is refused")
        assert again.last.end_reason == types_pb2.END_REASON_START_FAILED
        nvml_stub.state.heal_gpu(0)
        back = partial(lambda: healths(coordinator) == [well, well, well])
        await coordinator.until(back, "its return is told", deadline_s=30)
        third = coordinator.want(job("exit 4", "attempt_4", FOUR_GPUS[0].uuid))
        await coordinator.until(lambda: third.complete, "the next job runs")
        assert (third.last.exit_code, third.last.end_reason) == (4, types_pb2.END_REASON_EXITED)

    tell(story)
