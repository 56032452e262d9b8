"""A job that is cancelled while its container is being made leaves none."""

import asyncio
import threading
from typing import Any

import pytest

from agent.domain.attempt import AttemptKey, Isolation, JobOrder
from tests.contract.test_executor import docker_executor
from tests.rig.dockerd import Engine
from tests.rig.images import TINY, tiny_image

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def test_a_container_that_the_engine_makes_late_is_removed(docker_engine: Engine, docker_client, tmp_path):
    """The buyer cancelled while a busy engine was making the container. The attempt was cleared away, then
    the container came, and stayed for as long as the agent lived (chaos, seed 2)."""
    tiny_image(docker_client)
    executor = docker_executor(docker_engine, tmp_path)
    api: Any = executor._client.api
    asked, may_go_on, made = threading.Event(), threading.Event(), threading.Event()
    real = api.create_container

    def slowly(*arguments, **options):
        asked.set()
        assert may_go_on.wait(20)
        try:
            return real(*arguments, **options)
        finally:
            made.set()

    api.create_container = slowly
    order = JobOrder(
        key=AttemptKey(attempt_id="late", epoch=1),
        image=TINY,
        command=("sh", "-c", "exit 0"),
        env={},
        gpu_uuids=(),
        isolation_min=Isolation.CONTAINER,
        stop_grace_ms=0,
        run_ms_max=1_000,
        memory_bytes=0,
        cpu_milli=0,
    )

    async def story() -> None:
        preparing = asyncio.create_task(executor.prepare(order, lambda _: None))
        assert await asyncio.to_thread(asked.wait, 20)
        preparing.cancel()
        # The engine takes a moment longer than the cancel.
        asyncio.get_running_loop().call_later(0.2, may_go_on.set)
        await asyncio.gather(preparing, return_exceptions=True)
        await executor.destroy(order.key)
        assert await asyncio.to_thread(made.wait, 20)
        await executor.close()

    asyncio.run(story())
    assert docker_client.containers.list(all=True) == []
