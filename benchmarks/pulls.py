"""How fast an agent fetches an image, beside `docker pull` of the same one from the same registry."""

import asyncio
import time
from pathlib import Path
from statistics import median

import docker

from agent.domain.images import ImagePolicy
from agent.executor.docker import DockerExecutor
from benchmarks import report
from benchmarks.report import Figure
from tests.contract.test_executor import docker_executor
from tests.rig.dockerd import running_engine
from tests.rig.images import TINY, tiny_image
from tests.rig.parts import find_program
from tests.rig.registry import running_registry

LAYERS, LAYER_MB = 3, 40


async def pulls(folder: Path, turns: int) -> list[Figure]:
    with running_registry() as registry, running_engine() as engine, engine.client() as client:
        image = _pushed(client, f"{registry.host}/jobs/large")
        executor = docker_executor(engine, folder)
        executor._images._policy = ImagePolicy(reserve_bytes=0)
        program = str(find_program("docker", how="apt-get install docker.io"))
        plain = (program, "--host", engine.base_url, "pull", "--quiet", image)
        ours_s, floor_s = [], []
        # The first of each only warms up.
        for _ in range(turns + 1):
            ours_s.append(await _fetched(executor, client, image))
            floor_s.append(await _pulled(plain, client, image))
        await executor.close()
    size_mb = LAYERS * LAYER_MB
    return [
        report.at_most(
            f"pull of {size_mb} MB in {LAYERS} layers, s, p50, beside docker pull",
            median(ours_s[1:]),
            median(floor_s[1:]),
            1.10,
            1.00,
            f"{turns} turns; {size_mb / median(ours_s[1:]):.0f} MB/s, by digest, watched for stalls",
        )
    ]


def _pushed(client: docker.DockerClient, repository: str) -> str:
    """A large image that is in the registry and not in the engine."""
    tiny_image(client)
    base = TINY
    for _ in range(LAYERS):
        script = f"head -c {LAYER_MB}000000 /dev/urandom > /large-$RANDOM"
        made = client.containers.create(base, ["sh", "-c", script], network_mode="none")
        made.start()
        assert made.wait()["StatusCode"] == 0
        base = str(made.commit().id)
        made.remove()
    client.images.get(base).tag(repository, "1")
    for line in client.api.push(repository, "1", stream=True, decode=True):
        assert "error" not in line, line
    client.images.remove(base, force=True)
    return f"{repository}:1"


async def _fetched(executor: DockerExecutor, client: docker.DockerClient, image: str) -> float:
    began = time.monotonic()
    found = await executor._images.have(image, lambda _: None)
    took_s = time.monotonic() - began
    await asyncio.to_thread(client.images.remove, found.image_id, force=True)
    return took_s


async def _pulled(command: tuple[str, ...], client: docker.DockerClient, image: str) -> float:
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0
    took_s = time.monotonic() - began
    await asyncio.to_thread(client.images.remove, image, force=True)
    return took_s
