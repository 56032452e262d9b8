"""Images fetched by a real engine, from a real registry and from bad ones."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import docker
import pytest

from agent.domain.attempt import EndReason, JobOrder, OutputStream
from agent.domain.images import GB, ImagePolicy
from agent.executor import images as imaging
from agent.executor import pull as pulling
from agent.executor.docker import DockerExecutor
from agent.executor.ports import StartError
from tests.contract.test_executor import collect, docker_executor, end_of
from tests.rig.dockerd import Engine
from tests.rig.images import tiny_image
from tests.rig.registry import Registry
from tests.support.orders import order

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture
def pushed(docker_client: docker.DockerClient, registry: Registry) -> Iterator[Callable[..., str]]:
    """Puts an image into the registry, and takes all that came of it out of the engine."""
    names: list[str] = []

    def push(name: str, image: str, tag: str = "1") -> str:
        repository = f"{registry.host}/jobs/{name}"
        docker_client.images.get(image).tag(repository, tag)
        for line in docker_client.api.push(repository, tag, stream=True, decode=True):
            assert "error" not in line
        docker_client.images.remove(f"{repository}:{tag}")
        names.append(repository)
        return f"{repository}:{tag}"

    yield push
    for image in docker_client.images.list():
        if any(digest.startswith(tuple(names)) for digest in image.attrs["RepoDigests"] or ()):
            docker_client.images.remove(str(image.id), force=True)


def variant(client: docker.DockerClient, script: str) -> str:
    """The id of an image that is the tiny one after a script."""
    made = client.containers.create(tiny_image(client), ["sh", "-c", script], network_mode="none")
    made.start()
    assert made.wait()["StatusCode"] == 0
    image = made.commit()
    made.remove()
    assert image.id is not None
    return image.id


def strict(engine: Engine, folder: Path, **changes: Any) -> DockerExecutor:
    """With a policy as sellers have it, but for a full disk where the tests run."""
    executor = docker_executor(engine, folder)
    executor._images._policy = replace(ImagePolicy(reserve_bytes=0, image_bytes_max=GB), **changes)
    return executor


@pytest.fixture
def once(docker_engine: Engine, tmp_path: Path) -> Callable[..., str]:
    """Runs a job to its end, on an agent of its own with a memory of those before it: what it wrote."""

    def run(job: JobOrder, told: list[str] | None = None, **changes: Any) -> str:
        async def story() -> str:
            executor = strict(docker_engine, tmp_path, **changes)
            try:
                await executor.prepare(job, (told if told is not None else []).append)
                await executor.start(job, 600_000)
                found = await collect(executor, job)
                await end_of(executor, job)
                return found[OutputStream.STDOUT].decode()
            finally:
                await executor.destroy(job.key)
                await executor.close()

        return asyncio.run(story())

    return run


def test_an_image_is_pulled_and_progress_told(docker_client, pushed, once):
    image = pushed("plain", variant(docker_client, "echo new > /made"))
    told: list[str] = []
    assert once(order(image=image, command=("cat", "/made")), told) == "new\n"
    assert any(detail.startswith("pulling image") for detail in told)
    again: list[str] = []
    assert once(order("b", image=image, command=("cat", "/made")), again) == "new\n"
    assert not any(detail.startswith("pulling image") for detail in again)


def test_a_tag_means_what_its_registry_says_now(docker_client, pushed, once):
    image = pushed("moving", variant(docker_client, "echo old > /made"))
    assert once(order(image=image, command=("cat", "/made"))) == "old\n"
    pushed("moving", variant(docker_client, "echo new > /made"))
    assert once(order("b", image=image, command=("cat", "/made"))) == "new\n"


def test_an_image_of_the_sellers_own_is_not_for_strangers(docker_client, registry, once):
    own = f"{registry.host}/secret:1"
    docker_client.images.get(tiny_image(docker_client)).tag(own)
    try:
        with pytest.raises(StartError) as caught:
            once(order(image=own))
        assert caught.value.reason is EndReason.IMAGE_UNAVAILABLE
    finally:
        docker_client.images.remove(own)


def test_what_can_not_be_had_is_said(registry, once):
    digest = "sha256:" + "0" * 64
    for image, reason in (
        (f"{registry.host}/jobs/none:1", EndReason.IMAGE_UNAVAILABLE),
        (f"{registry.host}/jobs/none@{digest}", EndReason.IMAGE_UNAVAILABLE),
        ("NOT//AN IMAGE", EndReason.IMAGE_UNAVAILABLE),
        ("127.0.0.1:1/x:1", EndReason.START_FAILED),
        (f"127.0.0.1:1/x@{digest}", EndReason.START_FAILED),
    ):
        with pytest.raises(StartError) as caught:
            once(order(image=image))
        assert caught.value.reason is reason, image


def test_an_image_that_unpacks_to_far_more_than_it_says(docker_client, pushed, once):
    """A hundred megabytes of zeros are a hundred kilobytes on the wire."""
    image = pushed("bomb", variant(docker_client, "head -c 100000000 /dev/zero > /bomb"))
    with pytest.raises(StartError, match="unpacks to more than") as caught:
        once(order(image=image), image_bytes_max=50_000_000)
    assert caught.value.reason is EndReason.IMAGE_UNAVAILABLE
    repository = image.rpartition(":")[0]
    assert docker_client.images.list(repository) == []


@pytest.mark.parametrize(
    ("free", "reason"),
    [([900, 700, 400], EndReason.IMAGE_UNAVAILABLE), ([900, 700, 99], EndReason.START_FAILED)],
)
def test_a_pull_is_left_when_it_takes_too_much_of_the_disk(
    free, reason, docker_engine, tmp_path, monkeypatch
):
    most = 450 if reason is EndReason.IMAGE_UNAVAILABLE else 5_000
    executor = strict(docker_engine, tmp_path, reserve_bytes=100, image_bytes_max=most)
    left: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.append("left")

    async def story() -> None:
        numbers = iter(free)
        monkeypatch.setattr(imaging, "_free_bytes", lambda _: next(numbers))
        with pytest.raises(StartError) as caught:
            await executor._images._watched(endless())
        assert caught.value.reason is reason
        await executor.close()

    asyncio.run(story())
    assert left == ["left"]


def test_images_go_when_there_is_no_room_and_what_pays_stays(
    docker_client, docker_engine, pushed, once, tmp_path, monkeypatch
):
    images = {name: pushed(name, variant(docker_client, f"echo {name} > /made")) for name in ("a", "b", "c")}
    for number, name in enumerate(("a", "b", "a", "c")):
        once(order(f"{name}{number}", image=images[name]))
    there = lambda: [tag for each in docker_client.images.list() for tag in each.attrs["RepoDigests"] or ()]  # noqa: E731
    # Room for one more image comes when two have gone: "a" has paid twice.
    count = len(there())
    monkeypatch.setattr(imaging, "_free_bytes", lambda _: 0 if len(there()) > count - 2 else 3 * GB)

    async def story() -> None:
        executor = strict(docker_engine, tmp_path)
        executor._images._make_room()
        assert [image.uses for image in executor._images._cached.values()] == [2]
        await executor.close()

    asyncio.run(story())
    assert [name for name in "abc" if any(f"/jobs/{name}@" in digest for digest in there())] == ["a"]


def test_a_disk_that_is_full_takes_no_more(docker_client, pushed, once):
    image = pushed("plain", variant(docker_client, "echo new > /made"))
    with pytest.raises(StartError, match="too full") as caught:
        once(order(image=image), reserve_bytes=1 << 60)
    assert caught.value.reason is EndReason.START_FAILED


def test_a_pull_that_stalls_is_tried_again(docker_client, registry, pushed, once, monkeypatch):
    image = pushed("slow", variant(docker_client, "head -c 3000000 /dev/urandom > /made"))
    monkeypatch.setattr(pulling, "SILENCE_S", 3)
    told: list[str] = []
    with stalling_once(registry.host, "/blobs/") as host:
        reference = image.replace(registry.host, host)
        job = order(image=reference, command=("stat", "-c", "%s", "/made"))
        assert once(job, told) == "3000000\n"
        docker_client.images.remove(docker_client.images.get(_by_digest(docker_client, host)).id, force=True)
    assert "the pull stalled; trying again" in told


def _by_digest(client: docker.DockerClient, host: str) -> str:
    digests = [digest for image in client.images.list() for digest in image.attrs["RepoDigests"] or ()]
    (found,) = [digest for digest in digests if digest.startswith(host)]
    return str(found)


@contextmanager
def stalling_once(upstream: str, path: str) -> Iterator[str]:
    """A registry that passes on another's answers; the first big one for such a path it only begins."""
    stalled = threading.Event()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            self._pass_on()

        def do_HEAD(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            wanted = {name: ", ".join(self.headers.get_all(name, [])) for name in ("Accept", "Range")}
            wanted = {name: value for name, value in wanted.items() if value}
            request = Request(f"http://{upstream}{self.path}", headers=wanted, method=self.command)
            try:
                with urlopen(request) as reply:
                    status, headers, body = reply.status, reply.headers, reply.read()
            except HTTPError as error:
                status, headers, body = error.code, error.headers, error.read()
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() in (
                    "content-type",
                    "content-length",
                    "docker-content-digest",
                    "content-range",
                ):
                    self.send_header(name, value)
            self.end_headers()
            if path in self.path and len(body) > 1_000_000 and not stalled.is_set():
                stalled.set()
                self.wfile.write(body[:100_000])
                over.wait(60)
            else:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()


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
