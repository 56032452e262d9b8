"""The rig's engine runs real containers, keeps to itself, and leaves nothing behind, stopped or killed."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rig import leftovers
from tests.rig.dockerd import EngineOptions, Network, running_engine
from tests.rig.images import TINY, python_image, tiny_image
from tests.rig.parts import wait_until

pytestmark = pytest.mark.docker


def test_the_tiny_image_runs_a_shell_and_small_commands(docker_client):
    output = docker_client.containers.run(
        tiny_image(docker_client), ["sh", "-c", "seq 3 | sort -r | head -n 1; id -u job; exit 0"], remove=True
    )
    assert output.decode().split() == ["3", "10001"]


def test_the_python_image_runs_python_as_nobody_in_particular(docker_client):
    script = "import asyncio, ctypes, json, socket; print(json.dumps(1 + 1))"
    output = docker_client.containers.run(
        python_image(docker_client),
        ["python3", "-c", script],
        remove=True,
        user="10001:10001",
        read_only=True,
    )
    assert output == b"2\n"


def test_it_reads_no_other_engines_settings_and_writes_nowhere_else(docker_engine, docker_client):
    info = docker_client.info()
    assert info["DockerRootDir"].startswith(str(docker_engine.path))
    assert "DOCKER_HOST" not in Path(f"/proc/{_pid(docker_engine.path)}/environ").read_text()


def test_stopping_it_removes_containers_networks_mounts_cgroups_and_files(docker_engine):
    before = _host()
    with running_engine(EngineOptions(network=Network.PRIVATE)) as engine, engine.client() as client:
        folder = engine.path
        tiny_image(client)
        client.networks.create("jobs")
        client.volumes.create("data")
        client.containers.run(TINY, ["sleep", "600"], detach=True, network="jobs")
        client.containers.run(TINY, ["sleep", "600"], detach=True, restart_policy={"Name": "always"})
        rules = subprocess.check_output(engine.in_network(["iptables", "-S"]), text=True)
        assert "DOCKER-USER" in rules
        assert leftovers.mounts(folder)
        assert leftovers.cgroups(folder)
        assert _host().rules == before.rules
    assert _host() == before
    _assert_gone(folder)


def test_a_killed_owner_leaves_only_what_the_next_engine_sweeps(docker_engine):
    before = _host()
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().decode().strip())
    assert leftovers.processes(folder)
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    wait_until(lambda: not leftovers.processes(folder), "engine and container follow their owner")
    with running_engine():
        _assert_gone(folder)
    assert _host() == before


def test_an_engine_that_was_killed_is_stopped_all_the_same(docker_engine):
    with running_engine() as engine, engine.client() as client:
        folder = engine.path
        client.containers.run(tiny_image(client), ["sleep", "600"], detach=True)
        os.kill(_pid(folder), signal.SIGKILL)
        wait_until(lambda: not engine.answers(), "the engine is dead")
    _assert_gone(folder)


_OWNER = """
import signal
from tests.rig.dockerd import Engine, EngineOptions
from tests.rig.images import tiny_image
engine = Engine(EngineOptions())
with engine.client() as client:
    client.containers.run(tiny_image(client), ["sleep", "600"], detach=True, stop_signal="SIGKILL")
print(engine.path, flush=True)
signal.pause()
"""


@dataclass(frozen=True, kw_only=True)
class _Host:
    """What an engine could leave on the host outside its folder."""

    rules: str
    links: str


def _host() -> _Host:
    return _Host(
        rules=subprocess.check_output(["iptables", "-S"], text=True),
        links=subprocess.check_output(["ip", "-brief", "link"], text=True),
    )


def _assert_gone(folder: Path) -> None:
    assert not leftovers.processes(folder)
    assert not leftovers.mounts(folder)
    assert not leftovers.cgroups(folder)
    assert not folder.exists()


def _pid(folder: Path) -> int:
    return int((folder / "docker.pid").read_text())
