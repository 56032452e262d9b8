"""Secrets of a job on a real engine: files for the job alone, in memory, and nowhere else."""

import asyncio
import json
from pathlib import Path

import docker
import pytest

from agent.domain.attempt import EndReason, OutputStream
from agent.domain.confidential import Confidential, Login
from agent.domain.images import ImagePolicy
from agent.executor.docker import DockerExecutor
from agent.executor.ports import StartError
from agent.executor.secret_files import MEMORY, SecretFiles, file_system
from tests.contract.test_executor import collect, docker_executor, end_of
from tests.rig.dockerd import Engine
from tests.rig.fixtures import parts_needed
from tests.rig.images import tiny_image
from tests.rig.registry import PASSWORD, USER, running_registry
from tests.support.orders import order

CANARY = b"canary-5b1e\n\xff"
SECRETS = Confidential(files={"TOKEN": CANARY, "key.pem": b"second"})
KEY = order().key
# Waits in between until the agent is another.
LOOKS = """
grep -c ' /run/secrets ' /proc/mounts
cd /run/secrets
for way in 'echo x > TOKEN' 'rm TOKEN' 'touch new' 'chmod 777 .'
do ( eval "$way" ) 2>/dev/null && echo "got through: $way"; done
until [ -e /tmp/go ]; do sleep 0.1; done
ls /run/secrets; cat /run/secrets/TOKEN
"""


@pytest.mark.docker
@pytest.mark.slow
def test_only_the_job_sees_them_also_when_the_agent_is_another_by_then(
    docker_engine: Engine, docker_client: docker.DockerClient, tmp_path: Path
):
    job = order(image=tiny_image(docker_client), command=("sh", "-c", LOOKS), is_confidential=True)

    async def story() -> None:
        first = docker_executor(docker_engine, tmp_path)
        await first.prepare(job, lambda _: None, SECRETS)
        await first.start(job, 600_000)
        container = docker_client.api.inspect_container(f"usance-{job.key}")
        (mount,) = [each for each in container["Mounts"] if each["Type"] == "bind"]
        assert (mount["Destination"], mount["RW"]) == ("/run/secrets", False)
        folder = Path(mount["Source"])
        check_kept(folder, tmp_path)
        assert "canary" not in json.dumps(container)
        await first.close()
        again = docker_executor(docker_engine, tmp_path)
        docker_client.containers.get(container["Id"]).exec_run(["touch", "/tmp/go"])
        found = await collect(again, job)
        assert found[OutputStream.STDOUT] == b"1\nTOKEN\nkey.pem\n" + CANARY
        assert (await end_of(again, job)).exit_code == 0
        assert is_gone(folder)
        await again.destroy(job.key)
        assert is_gone(folder.parent)
        await again.close()

    asyncio.run(story())


def is_gone(folder: Path) -> bool:
    return not folder.exists()


def check_kept(folder: Path, state: Path) -> None:
    """In memory, for the agent's eyes, and in none of its files."""
    assert (folder / "TOKEN").read_bytes() == CANARY
    assert folder.parent.stat().st_mode & 0o077 == 0
    assert file_system(folder, Path("/proc/self/mounts").read_text()) in ("tmpfs", "ramfs")
    assert not [path for path in state.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]


@pytest.mark.docker
@pytest.mark.slow
def test_what_a_killed_agent_leaves_is_found(docker_engine: Engine, tmp_path: Path):
    async def story() -> None:
        executor = docker_executor(docker_engine, tmp_path)
        folder = executor._secrets.write(KEY, SECRETS.files)
        assert await executor.held() == {KEY}
        await executor.destroy(KEY)
        assert is_gone(folder.parent)
        await executor.close()

    asyncio.run(story())


@pytest.mark.docker
@pytest.mark.slow
def test_a_registry_that_gives_to_its_buyer_alone(
    docker_engine: Engine, docker_client: docker.DockerClient, tmp_path: Path
):
    """And whoever names the same image afterwards, while it lies on the host, needs the same."""
    with parts_needed(), running_registry(is_private=True) as registry:
        repository = f"{registry.host}/private/tiny"
        docker_client.images.get(tiny_image(docker_client)).tag(repository, "1")
        credential = {"username": USER, "password": PASSWORD}
        pushed = docker_client.api.push(repository, "1", stream=True, decode=True, auth_config=credential)
        digest = next(line["aux"]["Digest"] for line in pushed if "aux" in line)
        docker_client.images.remove(f"{repository}:1")
        login = Confidential(files={}, login=Login(username=USER, password=PASSWORD))
        wrong = Confidential(files={}, login=Login(username=USER, password="guessed"))

        async def fetch(name: str, known: Confidential | None) -> None:
            executor: DockerExecutor = docker_executor(docker_engine, tmp_path)
            executor._images._policy = ImagePolicy(reserve_bytes=0)
            try:
                await executor.prepare(order(image=name), lambda _: None, known)
            finally:
                await executor.destroy(KEY)
                await executor.close()

        exact = f"{repository}@{digest}"
        for known in (None, wrong):
            for name in (f"{repository}:1", exact):
                with pytest.raises(StartError) as refused:
                    asyncio.run(fetch(name, known))
                assert refused.value.reason is EndReason.IMAGE_UNAVAILABLE
                assert "guessed" not in str(refused.value)
        asyncio.run(fetch(f"{repository}:1", login))
        with pytest.raises(StartError):
            asyncio.run(fetch(exact, None))
        asyncio.run(fetch(exact, login))
        docker_client.images.remove(exact, force=True)
        kept = [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD in path.read_text()]
        assert kept == []


def test_a_folder_of_somebody_elses_is_not_used(tmp_path: Path, monkeypatch):
    (tmp_path / "usance-host").mkdir(mode=0o755)
    (tmp_path / "usance-host" / "theirs").touch()
    files = SecretFiles(tmp_path, "host")
    monkeypatch.setattr("agent.executor.secret_files.file_system", lambda *_: "tmpfs")
    with pytest.raises(StartError, match="not this agent's own"):
        files.write(KEY, SECRETS.files)
    (tmp_path / "usance-host").chmod(0o700)
    assert (files.write(KEY, SECRETS.files) / "TOKEN").read_bytes() == CANARY


def test_a_disk_keeps_no_secrets(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("agent.executor.secret_files.file_system", lambda *_: "ext4")
    with pytest.raises(StartError, match="keeps no secrets in memory, but on ext4"):
        SecretFiles(tmp_path, "host").write(KEY, SECRETS.files)
    assert list(tmp_path.iterdir()) == []


def test_the_last_mount_at_the_longest_path_counts():
    mounts = "a / ext4 rw\nb /dev/shm tmpfs rw\nc /dev devtmpfs rw\nd /dev/shm ext4 rw\ne /dev/shmore x rw"
    assert file_system(MEMORY, mounts) == "ext4"
    assert file_system(Path("/dev/null"), mounts) == "devtmpfs"
    assert file_system(Path("/srv"), mounts) == "ext4"
