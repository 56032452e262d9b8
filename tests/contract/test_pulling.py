"""Images fetched by a real engine, from a real registry and from bad ones."""

import asyncio
import socket

import pytest

from agent.domain.attempt import EndReason
from agent.executor import pull as pulling
from agent.executor.ports import StartError
from tests.contract.test_executor import docker_executor, end_of
from tests.rig.images import tiny_image
from tests.rig.registry import Registry
from tests.support.orders import order

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def test_an_image_is_pulled_and_progress_told(docker_client, docker_engine, registry: Registry, tmp_path):
    name = f"{registry.host}/jobs/tiny"
    docker_client.images.get(tiny_image(docker_client)).tag(name, "1")
    for line in docker_client.api.push(name, "1", stream=True, decode=True):
        assert "error" not in line
    docker_client.images.remove(f"{name}:1")
    executor = docker_executor(docker_engine, tmp_path)
    told: list[str] = []

    async def story() -> None:
        job = order(image=f"{name}:1", command=("sh", "-c", "exit 0"))
        await executor.prepare(job, told.append)
        await executor.start(job, 600_000)
        assert (await end_of(executor, job)).exit_code == 0
        await executor.destroy(job.key)
        absent = order("b", image=f"{registry.host}/jobs/none:1")
        with pytest.raises(StartError) as caught:
            await executor.prepare(absent, told.append)
        assert caught.value.reason is EndReason.IMAGE_UNAVAILABLE
        malformed = order("c", image="NOT//AN IMAGE")
        with pytest.raises(StartError) as caught:
            await executor.prepare(malformed, told.append)
        assert caught.value.reason is EndReason.IMAGE_UNAVAILABLE
        nowhere = order("d", image="127.0.0.1:1/x:1")
        with pytest.raises(StartError) as caught:
            await executor.prepare(nowhere, told.append)
        assert caught.value.reason is EndReason.START_FAILED
        await executor.close()

    asyncio.run(story())
    assert any(detail.startswith("pulling image") for detail in told)
    assert told[-1].startswith("pulling image") or "making" in told[-1]
    docker_client.images.remove(f"{name}:1")


def test_a_pull_can_be_left_and_one_that_is_silent_is_given_up(
    docker_client, docker_engine, tmp_path, monkeypatch
):
    """A registry that takes the call and says nothing."""
    executor = docker_executor(docker_engine, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/x:1"

        async def leave() -> None:
            task = asyncio.create_task(executor.prepare(order(image=image), lambda _: None))
            connection, _ = await asyncio.to_thread(silent.accept)
            task.cancel()
            async with asyncio.timeout(5):
                with pytest.raises(asyncio.CancelledError):
                    await task
            connection.close()

        asyncio.run(leave())
        monkeypatch.setattr(pulling, "SILENCE_S", 0.2)

        async def give_up() -> None:
            with pytest.raises(StartError, match="stalled"):
                await executor.prepare(order(image=image), lambda _: None)
            await executor.close()

        asyncio.run(give_up())
