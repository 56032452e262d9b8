"""The check-up against a real engine: what is wrong on purpose is found by trying, and nothing is left."""

import asyncio

import pytest

from agent.domain.checkup import (
    DriverFacts,
    Facts,
    GpuFacts,
    MachineFacts,
    MarketFacts,
    examine,
)
from agent.executor import survey
from runtime.findings import Finding, Verdict
from tests.contract.test_executor import docker_executor
from tests.rig.dockerd import Engine
from tests.rig.gpus import FOUR_GPUS
from tests.rig.nvidia_hook import HookSettings

pytestmark = [pytest.mark.docker, pytest.mark.slow]
GPU = FOUR_GPUS[0].uuid
GPU_MINORS = {gpu.uuid: gpu.minor for gpu in FOUR_GPUS}


def test_a_container_is_tried_with_a_gpu_and_removed(docker_engine: Engine, docker_client, tmp_path):
    images = {image.id for image in docker_client.images.list(all=True)}

    async def tried(uuid: str) -> str:
        executor = docker_executor(docker_engine, tmp_path, gpu_minors=GPU_MINORS)
        try:
            return await executor.try_start((uuid,))
        finally:
            await executor.close()

    assert asyncio.run(tried(GPU)) == ""
    assert [call.uuids for call in docker_engine.hook_calls()][-1] == (GPU,)
    docker_engine.set_hook(HookSettings(fail="the driver is broken"))
    assert "the driver is broken" in asyncio.run(tried(GPU))
    assert docker_client.containers.list(all=True) == []
    assert {image.id for image in docker_client.images.list(all=True)} == images


def test_the_engine_says_what_it_is(docker_engine: Engine, tmp_path):
    """The rig's own engine has faults enough: it keeps no containers, and knows no user namespaces."""
    found = _examined(docker_engine.base_url)
    assert found["seccomp"].verdict is Verdict.GOOD
    assert found["user namespaces"].verdict is Verdict.DOUBT
    assert found["live-restore"].verdict is Verdict.DOUBT
    assert found["engine"].found.startswith(tuple("123456789"))
    assert found["runc"].found.startswith(tuple("123456789"))
    away = _examined(f"unix://{tmp_path}/nobody.sock")["engine"]
    assert (away.verdict, "systemctl start docker" in away.remedy) == (Verdict.BAD, True)


def test_the_toolkits_traps_are_read(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(
        'swarm-resource = "DOCKER_RESOURCE_GPU"\n'
        "accept-nvidia-visible-devices-envvar-when-unprivileged = false\n"
    )
    facts = survey.toolkit_facts(config)
    assert (facts.swarm_resource, facts.takes_environment) == ("DOCKER_RESOURCE_GPU", False)
    assert survey.toolkit_facts(tmp_path / "none").takes_environment


def _examined(docker_host: str) -> dict[str, Finding]:
    facts = Facts(
        machine=MachineFacts(),
        market=MarketFacts(),
        driver=DriverFacts(gpus=(GpuFacts(uuid=GPU, model="m"),)),
        engine=survey.engine_facts(docker_host),
    )
    return {one.check: one for one in examine(facts)}
