"""The plan on a real engine: what a job finds inside, which bypasses are closed, what is refused."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from agent.domain.attempt import EndReason, JobOrder, OutputStream
from agent.domain.plan import ContainerPlan, Limit, plan
from agent.executor import docker as executing
from agent.executor.docker import DockerExecutor
from agent.executor.inspection import differences
from agent.executor.ports import RunEnd, StartError
from tests.contract.test_executor import collect, docker_executor, end_of
from tests.rig.dockerd import Engine, EngineOptions, running_engine
from tests.rig.gpus import FOUR_GPUS, NVIDIA_MAJOR
from tests.rig.images import TINY, tiny_image
from tests.rig.leftovers import device_cgroups_are_files
from tests.rig.nvidia_hook import HookSettings
from tests.support.need import need
from tests.support.orders import order

pytestmark = [pytest.mark.docker, pytest.mark.slow]

FIRST, SECOND = FOUR_GPUS[0].uuid, FOUR_GPUS[1].uuid

FOREVER = ("sh", "-c", "echo ready; while :; do sleep 0.1; done")


@pytest.fixture
def executor(docker_engine: Engine, docker_client: docker.DockerClient, tmp_path: Path):
    tiny_image(docker_client)
    return docker_executor(docker_engine, tmp_path)


def scenario(test):
    """Runs an async test and clears up after it."""

    def run(executor: DockerExecutor, docker_client: docker.DockerClient) -> None:
        async def whole() -> None:
            try:
                await test(executor, docker_client)
            finally:
                for key in await executor.held():
                    await executor.destroy(key)
                await executor.close()

        asyncio.run(whole())
        assert docker_client.api.containers(all=True) == []
        assert docker_client.api.volumes()["Volumes"] in (None, [])

    return run


async def begin(executor: DockerExecutor, job: JobOrder) -> None:
    await executor.prepare(job, lambda _: None)
    await executor.start(job, 600_000)


async def run_job(executor: DockerExecutor, job: JobOrder) -> tuple[str, RunEnd]:
    await begin(executor, job)
    found = await collect(executor, job)
    return found[OutputStream.STDOUT].decode(), await end_of(executor, job)


def shell(script: str, attempt_id: str = "a", **changes: Any) -> JobOrder:
    return order(attempt_id, image=TINY, command=("sh", "-c", script), **changes)


@scenario
async def test_what_a_job_finds_inside(executor, docker_client):
    script = """
    id -u; id -g; pwd
    grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
    touch /root-is-writable 2>/dev/null && echo WRITABLE
    touch /workspace/mine /tmp/mine && echo has room
    ls /sys/class/net
    ulimit -n; ulimit -c
    cat /proc/1/comm
    mknod /tmp/node c 1 3 2>/dev/null && echo NODE
    for p in /proc/sys/kernel/hostname /sys/fs/cgroup/x /proc/sysrq-trigger; do
        (echo x > $p) 2>/dev/null && echo WRITES $p
    done
    ls /var/run/docker.sock 2>/dev/null
    exit 0
    """
    output, end = await run_job(executor, shell(script))
    assert end.exit_code == 0
    zeros = "0000000000000000"
    assert output.split() == [
        *("10001", "10001", "/workspace"),
        *("CapPrm:", zeros, "CapEff:", zeros, "CapBnd:", zeros, "NoNewPrivs:", "1", "Seccomp:", "2"),
        *("has", "room", "lo", "1024", "0", "docker-init"),
    ]


@scenario
async def test_memory_is_what_it_asked_for_and_its_files_are_part_of_it(executor, docker_client):
    job = shell("tail /dev/zero", memory_bytes=64 << 20)
    _, end = await run_job(executor, job)
    assert (end.reason, end.exit_code) == (EndReason.OUT_OF_MEMORY, 137)
    fill = "head -c 200000000 /dev/zero > /workspace/big; stat -c %s /workspace/big"
    filling = shell(fill, "b", memory_bytes=64 << 20)
    output, _ = await run_job(executor, filling)
    assert int(output) == 32 << 20


@scenario
async def test_processes_are_limited(executor, docker_client):
    bomb = "n=0; while [ $n -lt 400 ]; do sleep 20 & n=$((n+1)); done 2>/dev/null; echo survived"
    output, end = await run_job(executor, shell(bomb))
    assert "survived" not in output
    assert end.exit_code != 0


@scenario
async def test_jobs_side_by_side_open_each_only_their_own_gpus(executor, docker_client):
    need(device_cgroups_are_files(), "cgroup v1", "boot with systemd.unified_cgroup_hierarchy=0")
    seen = {}
    third_and_fourth = tuple(gpu.uuid for gpu in FOUR_GPUS[2:])
    for name, uuids in (("first", (FIRST,)), ("second", (SECOND,)), ("both others", third_and_fourth)):
        job = order(name.replace(" ", "_"), image=TINY, command=FOREVER, gpu_uuids=uuids)
        await begin(executor, job)
        run = await executor.find(job)
        assert run is not None
        seen[name] = openable(docker_client, run.run_id)
        inside = docker_client.containers.get(run.run_id)
        assert inside.exec_run(["ls", "/dev/rig-gpus"]).output.decode().split() == list(uuids)
    assert seen == {"first": ["0"], "second": ["1"], "both others": ["2", "3"]}


GREEDY = ["ENV NVIDIA_VISIBLE_DEVICES=all", "ENV NVIDIA_DRIVER_CAPABILITIES=all", "ENV CUDA_VERSION=12.4"]


@pytest.mark.parametrize("gpu_uuids", [(), (FIRST,)])
@pytest.mark.parametrize(
    "bypass", ["image", "legacy image", "environment", "swarm resource", "default runtime"]
)
def test_a_bypass_of_the_rig_is_closed(bypass, gpu_uuids, request, tmp_path):
    """tests/rig shows that each of these opens all GPUs where the plan's rules are not applied."""
    need(device_cgroups_are_files(), "cgroup v1", "boot with systemd.unified_cgroup_hierarchy=0")
    engine = _engine_for(bypass, request)
    with engine.client() as client:
        image = tiny_image(client, "usance-rig/greedy:2", GREEDY)
        if bypass == "legacy image":
            # It says nothing of devices, which old toolkits take for a wish for all of them.
            image = tiny_image(client, "usance-rig/legacy:1", ["ENV CUDA_VERSION=12.4"])
        env = {}
        if bypass == "environment":
            env = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "all"}
        if bypass == "swarm resource":
            engine.set_hook(HookSettings(swarm_resource="DOCKER_RESOURCE_GPU"))
            env = {"DOCKER_RESOURCE_GPU": "all"}
        executor = docker_executor(engine, tmp_path)
        job = order(image=image, command=FOREVER, gpu_uuids=gpu_uuids, env=env)

        async def story() -> list[str]:
            try:
                await begin(executor, job)
                run = await executor.find(job)
                assert run is not None
                return openable(client, run.run_id)
            finally:
                await executor.destroy(job.key)
                await executor.close()

        # Such a host's toolkit listens to that variable alone, which is blank: it gives no GPU, not all. Of
        # what the engine gives by CDI no variable has a say.
        right = gpu_uuids and (bypass != "swarm resource" or engine.has_cdi)
        assert asyncio.run(story()) == (["0"] if right else [])


@pytest.fixture(scope="module")
def trusting_engine() -> Iterator[Engine]:
    """One whose runtime lets images choose their GPUs, unless it is told another."""
    with running_engine(EngineOptions(nvidia_is_default_runtime=True)) as engine:
        yield engine


def _engine_for(bypass: str, request: pytest.FixtureRequest) -> Engine:
    is_trusting = bypass in ("legacy image", "default runtime")
    engine: Engine = request.getfixturevalue("trusting_engine" if is_trusting else "docker_engine")
    return engine


def openable(client: docker.DockerClient, container_id: str) -> list[str]:
    """The minors of the GPUs that the container's device cgroup lets through."""
    pid = client.api.inspect_container(container_id)["State"]["Pid"]
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    (path,) = [line.split(":")[2] for line in lines if line.split(":")[1] == "devices"]
    folder = Path("/sys/fs/cgroup/devices") / path.lstrip("/")
    rules = [line.split() for line in (folder / "devices.list").read_text().splitlines()]
    assert all(rule[:2] != ["a", "*:*"] for rule in rules)
    open_to_it = [rule[1].split(":") for rule in rules if set(rule[2]) & set("rw")]
    return [minor for major, minor in open_to_it if major in (str(NVIDIA_MAJOR), "*")]


GPU_MINORS = {gpu.uuid: gpu.minor for gpu in FOUR_GPUS}


@pytest.mark.parametrize("fault", ["none", "one more", "none at all", "another"])
def test_what_opens_more_or_less_than_it_bought_is_stopped(
    fault, docker_engine, docker_client, tmp_path, monkeypatch
):
    """Whatever the plan and the toolkit say: the kernel is asked."""
    need(device_cgroups_are_files(), "cgroup v1", "boot with systemd.unified_cgroup_hierarchy=0")
    tiny_image(docker_client)
    executor = docker_executor(docker_engine, tmp_path, gpu_minors=GPU_MINORS)
    given = {"one more": (FIRST, SECOND), "another": (SECOND,)}.get(fault, (FIRST,))
    docker_engine.set_hook(HookSettings(accept_envvar_when_unprivileged=fault != "none at all"))

    def altered(*whole: Any) -> ContainerPlan:
        planned = plan(*whole)
        assert planned.gpus is not None
        assert (planned.gpus.driver == "cdi") is docker_engine.has_cdi
        if docker_engine.has_cdi and fault == "none at all":
            return replace(planned, gpus=None)
        names = tuple(f"nvidia.com/gpu={uuid}" if docker_engine.has_cdi else uuid for uuid in given)
        return replace(planned, gpus=replace(planned.gpus, device_ids=names))

    monkeypatch.setattr(executing, "plan", altered)
    job = order(image=TINY, command=FOREVER, gpu_uuids=(FIRST,))

    async def story() -> None:
        if fault == "none":
            await begin(executor, job)
            assert await executor.is_running(job)
        else:
            with pytest.raises(StartError, match=r"GPU [01] is") as caught:
                await begin(executor, job)
            assert caught.value.reason is EndReason.START_FAILED
            assert docker_client.api.containers(all=True) == []
        await executor.destroy(job.key)
        await executor.close()

    asyncio.run(story())


@scenario
async def test_the_image_has_no_say(executor, docker_client):
    """Its entry point, user, health check and volumes are its own affair."""
    lines = [
        "VOLUME /scratch",
        "VOLUME /workspace",
        "USER 0",
        'ENTRYPOINT ["/bin/no-such-thing"]',
        "HEALTHCHECK --interval=1s CMD touch /tmp/healthy",
    ]
    image = tiny_image(docker_client, "usance-rig/stubborn:1", lines)
    script = "id -u; grep ' /scratch ' /proc/mounts"
    output, _ = await run_job(executor, order(image=image, command=("sh", "-c", script)))
    assert output.startswith("10001\n")
    assert "tmpfs /scratch tmpfs rw,nosuid,nodev" in output
    patient = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    stopping = order("b", image=image, command=("sh", "-c", patient))
    await begin(executor, stopping)
    async for _ in executor.output(stopping, 0):
        break
    await executor.stop(stopping, 20_000)
    assert (await end_of(executor, stopping)).exit_code == 9


ALTERATIONS: dict[str, Callable[[ContainerPlan], ContainerPlan]] = {
    "image": lambda p: replace(p, image="sha256:other"),
    "command": lambda p: replace(p, command=("false",)),
    "environment": lambda p: replace(p, environment={**p.environment, "NVIDIA_VISIBLE_DEVICES": "all"}),
    "labels": lambda p: replace(p, labels={**p.labels, "usance.epoch": "2"}),
    "user": lambda p: replace(p, user="0:0"),
    "working directory": lambda p: replace(p, working_dir="/"),
    "runtime": lambda p: replace(p, runtime="nvidia"),
    "network": lambda p: replace(p, network_mode="host"),
    "dropped capabilities": lambda p: replace(p, cap_drop=()),
    "security options": lambda p: replace(p, security_options=()),
    "read-only root": lambda p: replace(p, read_only=False),
    "tmpfs": lambda p: replace(p, tmpfs={}),
    "memory": lambda p: replace(p, memory_bytes=p.memory_bytes * 2),
    "memory and swap": lambda p: replace(p, memory_swap_bytes=-1),
    "processors": lambda p: replace(p, nano_cpus=p.nano_cpus * 2),
    "processes": lambda p: replace(p, pids_max=-1),
    "shared memory": lambda p: replace(p, shm_bytes=p.shm_bytes * 2),
    "limits": lambda p: replace(p, limits=(Limit(name="core", value=-1),)),
    "OOM score": lambda p: replace(p, oom_score_adj=0),
    "init": lambda p: replace(p, init=False),
    "health check": lambda p: replace(p, healthcheck=()),
    "IPC": lambda p: replace(p, ipc_mode="host"),
    "log driver": lambda p: replace(p, log_driver="local"),
    "name servers": lambda p: replace(p, dns=("10.0.0.1",)),
    "resolver's options": lambda p: replace(p, dns_options=("ndots:9",)),
    "extra hosts": lambda p: replace(p, extra_hosts=("a:10.0.0.1",)),
    "secrets": lambda p: replace(p, secrets="/etc"),
    "GPUs": lambda p: replace(p, gpus=replace(p.gpus, device_ids=(SECOND,)) if p.gpus else None),
}
ADDITIONS: dict[str, dict[str, Any]] = {
    "Privileged": {"Privileged": True},
    "Binds": {"Binds": ["/:/host"]},
    "CapAdd": {"CapAdd": ["SYS_ADMIN"]},
    "Devices": {"Devices": [{"PathOnHost": "/dev/sda"}]},
    "DeviceCgroupRules": {"DeviceCgroupRules": ["c 195:* rw"]},
    "PidMode": {"PidMode": "host"},
    "UTSMode": {"UTSMode": "host"},
    "UsernsMode": {"UsernsMode": "host"},
    "VolumesFrom": {"VolumesFrom": ["other"]},
    "PortBindings": {"PortBindings": {"80/tcp": [{}]}},
    "Sysctls": {"Sysctls": {"kernel.shm_rmid_forced": "1"}},
    "GroupAdd": {"GroupAdd": ["0"]},
    "restart policy": {"RestartPolicy": {"Name": "always"}},
}


@scenario
async def test_a_container_that_is_not_as_planned_is_not_started(executor, docker_client):
    job = order(image=TINY, gpu_uuids=(FIRST,))
    await executor.prepare(job, lambda _: None)
    inspected = docker_client.api.inspect_container(f"usance-{job.key}")
    wanted = plan(job, executor._policy, cdi_devices=executor._cdi_devices(job))
    wanted = replace(wanted, image=docker_client.images.get(TINY).id)
    assert differences(wanted, inspected) == []
    for name, alter in ALTERATIONS.items():
        assert any(found.startswith(f"{name}:") for found in differences(alter(wanted), inspected)), name
    for name, more in ADDITIONS.items():
        other = {**inspected, "HostConfig": {**inspected["HostConfig"], **more}}
        assert any(found.startswith(name) for found in differences(wanted, other)), name
    mounted = {**inspected, "Mounts": [{"Type": "volume", "Destination": "/x"}]}
    assert differences(wanted, mounted) == ["a mount of type volume at /x"]
    mounted = {**inspected, "Mounts": [{"Type": "bind", "Source": "/etc", "Destination": "/x", "RW": False}]}
    assert [found.partition(":")[0] for found in differences(wanted, mounted)] == ["secrets"]


@scenario
async def test_a_run_goes_on_when_its_supervisor_is_killed(executor, docker_client):
    """A container does not die with it: another takes over, and the end is known."""
    script = "echo one; sleep 1.5; echo two; exit 4"
    job = shell(script)
    await begin(executor, job)
    async for _ in executor.output(job, 0):
        break
    pid = executor._runs.supervisor_pid(job.key)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        end = await executor.wait(job)
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 4)
    assert end.run_ms is not None
    assert 1_400 <= end.run_ms < 4_000
