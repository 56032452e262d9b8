"""The rig's self-check: containers open the GPUs that they were given, and the known bypasses are bypasses.

A bypass shown here is what the agent's rules are for; a test of the agent shows it closed.
"""

from typing import Any

import pytest
from docker import DockerClient
from docker.errors import APIError
from docker.types import DeviceRequest

from tests.rig.dockerd import Engine, EngineOptions, running_engine
from tests.rig.gpus import FOUR_GPUS, NVIDIA_MAJOR
from tests.rig.images import TINY, tiny_image
from tests.rig.leftovers import device_cgroups_are_files
from tests.rig.nvidia_hook import HookSettings
from tests.support.need import need

pytestmark = pytest.mark.docker

FIRST, SECOND, THIRD, FOURTH = (gpu.uuid for gpu in FOUR_GPUS)
ALL = {0, 1, 2, 3}

# The kernel's own answer, by nodes that the container makes itself: "no such device" says that the container
# may open GPU n (no driver is there to go on), "not permitted" that it may not.
PROBE = f"""
for n in 0 1 2 3; do
    mknod /tmp/gpu$n c {NVIDIA_MAJOR} $n
    head -c 1 /tmp/gpu$n 2>&1 | grep -q "No such device" && echo $n
    rm /tmp/gpu$n
done; true
"""


@pytest.fixture
def client(docker_client: DockerClient) -> DockerClient:
    need(
        device_cgroups_are_files(),
        "the devices controller of cgroup v1",
        "boot with systemd.unified_cgroup_hierarchy=0",
    )
    tiny_image(docker_client)
    return docker_client


@pytest.fixture
def greedy_image(client: DockerClient) -> str:
    """An image that asks for all GPUs by itself."""
    changes = ["ENV NVIDIA_VISIBLE_DEVICES=all", "ENV NVIDIA_DRIVER_CAPABILITIES=all"]
    return tiny_image(client, "usance-rig/greedy:1", changes)


def gpus(*uuids: str) -> list[DeviceRequest]:
    return [DeviceRequest(device_ids=list(uuids), capabilities=[["gpu", "compute", "utility"]])]


def openable(client: DockerClient, image: str = TINY, **options: Any) -> set[int]:
    """The minors of the GPUs that a container of this image and these options can open."""
    output = client.containers.run(image, ["sh", "-c", PROBE], remove=True, **options)
    return {int(line) for line in output.decode().split()}


def test_two_containers_open_each_only_their_own(client, docker_engine):
    sleep = ["sleep", "60"]
    first = client.containers.run(TINY, sleep, detach=True, device_requests=gpus(FIRST))
    second = client.containers.run(TINY, sleep, detach=True, device_requests=gpus(SECOND))
    seen = {}
    for container in (first, second):
        seen[container.id] = (
            container.exec_run(["sh", "-c", PROBE]).output.decode().split(),
            container.exec_run(["ls", "/dev/rig-gpus"]).output.decode().split(),
        )
    assert seen == {first.id: (["0"], [FIRST]), second.id: (["1"], [SECOND])}
    calls = {call.container_id: call.uuids for call in docker_engine.hook_calls()}
    assert calls[first.id] == (FIRST,)
    assert calls[second.id] == (SECOND,)


def test_the_request_beats_the_image_and_the_environment(client, greedy_image):
    assert openable(client, device_requests=gpus(FIRST, FOURTH)) == {0, 3}
    everything = {"NVIDIA_VISIBLE_DEVICES": "all"}
    assert openable(client, greedy_image, device_requests=gpus(THIRD), environment=everything) == {2}


def test_nothing_asked_nothing_given(client, greedy_image):
    assert openable(client) == set()
    assert openable(client, greedy_image) == set()


def test_an_unknown_gpu_starts_nothing(client):
    with pytest.raises(APIError, match="unknown device: GPU-none"):
        openable(client, device_requests=gpus("GPU-none"))


def test_a_failing_hook_starts_nothing(client, docker_engine):
    docker_engine.set_hook(HookSettings(fail="driver rpc error: timed out"))
    with pytest.raises(APIError, match="driver rpc error: timed out"):
        openable(client, device_requests=gpus(FIRST))


def test_a_toolkit_that_distrusts_the_variable_gives_a_container_without_its_gpu(client, docker_engine):
    docker_engine.set_hook(HookSettings(accept_envvar_when_unprivileged=False))
    assert openable(client, device_requests=gpus(FIRST)) == set()


def test_bypass_a_swarm_resource_beats_the_request(client, docker_engine):
    docker_engine.set_hook(HookSettings(swarm_resource="DOCKER_RESOURCE_GPU"))
    wish = {"DOCKER_RESOURCE_GPU": "all"}
    assert openable(client, device_requests=gpus(FIRST), environment=wish) == ALL


def test_bypass_count_gives_the_same_gpu_twice(client):
    one = [DeviceRequest(count=1, capabilities=[["gpu"]])]
    holder = client.containers.run(TINY, ["sleep", "60"], detach=True, device_requests=one)
    assert holder.exec_run(["sh", "-c", PROBE]).output.decode().split() == ["0"]
    assert openable(client, device_requests=one) == {0}


def test_bypass_the_nvidia_runtime_lets_the_image_decide(client, greedy_image):
    assert openable(client, greedy_image, runtime="nvidia") == ALL
    assert openable(client, runtime="nvidia", environment={"CUDA_VERSION": "12.4"}) == ALL
    void = {"NVIDIA_VISIBLE_DEVICES": "void"}
    assert openable(client, greedy_image, runtime="nvidia", environment=void) == set()


def test_bypass_the_nvidia_runtime_as_the_default(client):
    with (
        running_engine(EngineOptions(nvidia_is_default_runtime=True)) as engine,
        engine.client() as own_client,
    ):
        greedy = tiny_image(own_client, "usance-rig/greedy:1", ["ENV NVIDIA_VISIBLE_DEVICES=all"])
        assert openable(own_client, greedy) == ALL
        assert openable(own_client, greedy, runtime="runc") == set()


def test_bypass_a_device_rule_opens_everything(client):
    assert openable(client, device_cgroup_rules=[f"c {NVIDIA_MAJOR}:* rw"]) == ALL


def test_the_inventory_can_change_under_way(client, docker_engine: Engine):
    docker_engine.set_gpus(FOUR_GPUS[:1])
    assert openable(client, device_requests=gpus(FIRST)) == {0}
    with pytest.raises(APIError, match="unknown device"):
        openable(client, device_requests=gpus(SECOND))
