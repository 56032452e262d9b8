"""The rig's registry takes and gives images, also by digest, and leaves nothing behind."""

import socket

import pytest
from docker.errors import APIError, NotFound

from tests.rig.images import tiny_image
from tests.rig.registry import running_registry

pytestmark = pytest.mark.docker


def test_an_image_goes_there_and_comes_back_by_digest(docker_client, registry):
    name = f"{registry.host}/jobs/tiny"
    image = docker_client.images.get(tiny_image(docker_client))
    image.tag(name, "1")
    pushed = list(docker_client.api.push(name, "1", stream=True, decode=True))
    digest = next(line["aux"]["Digest"] for line in pushed if "aux" in line)
    docker_client.images.remove(f"{name}:1")
    pulled = docker_client.images.pull(name, tag=digest)
    assert pulled.id == image.id
    assert pulled.attrs["RepoDigests"] == [f"{name}@{digest}"]
    docker_client.images.remove(f"{name}@{digest}")


def test_what_it_does_not_have_is_not_found(docker_client, registry):
    with pytest.raises(NotFound):
        docker_client.images.pull(f"{registry.host}/jobs/none", tag="1")


def test_stopped_it_is_gone(docker_client, registry):
    with running_registry() as other:
        host, port = other.host.split(":")
        socket.create_connection((host, int(port))).close()
        assert other.host != registry.host
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    with pytest.raises(APIError, match="connection refused"):
        docker_client.images.pull(f"{other.host}/jobs/tiny", tag="1")
    assert not other.path.exists()
