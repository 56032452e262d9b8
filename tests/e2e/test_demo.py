"""`make demo` shows what it promises and leaves nothing behind, also when it is interrupted."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest

from tests.rig.images import TINY
from tests.rig.parts import wait_until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
NOWHERE = "unix:///nonexistent/docker.sock"


class Demo:
    """The demo as a person would start it, with a folder for temporary files that is its alone."""

    def __init__(self, folder: Path, docker_host: str) -> None:
        self.folder = folder
        self.folder.mkdir()
        self._output = folder.with_suffix(".txt")
        environment = {**os.environ, "TMPDIR": str(folder), "DOCKER_HOST": docker_host}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.demo"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self._output.read_text()

    def until(self, text: str) -> None:
        wait_until(lambda: text in self.text or self.process.poll() is not None, text, deadline_s=60)
        assert text in self.text, self.text

    def end(self) -> int:
        return self.process.wait(120)

    def left(self) -> list[str]:
        """Files, and processes that have anything to do with our folder."""
        return [*map(str, self.folder.rglob("*")), *self._processes()]

    def clear(self) -> None:
        """A test that failed must not leave its demo running."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        for pid in self._found():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _processes(self) -> Iterator[str]:
        return iter(self._found().values())

    def _found(self) -> dict[int, str]:
        """What runs for us: process by process its arguments."""
        found = {}
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                mine = f"TMPDIR={self.folder}".encode() in (entry / "environ").read_bytes()
                arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if entry.name.isdigit() and (mine or str(self.folder) in arguments):
                    found[int(entry.name)] = arguments
        return found


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[str], Demo]]:
    """Start a demo that looks for its engine at this address."""
    begun: list[Demo] = []

    def start(docker_host: str) -> Demo:
        begun.append(Demo(tmp_path / "demo", docker_host))
        return begun[-1]

    yield start
    for demo in begun:
        demo.clear()


def test_the_demo_without_docker(begin):
    demo = begin(NOWHERE)
    before_s = _processor_s()
    assert demo.end() == 0, demo.text
    # It is to take under 30 s. Its waits are some 6 s; the rest is work, which other tests beside it can't
    # make more of, as they could of the time by the clock.
    assert _processor_s() - before_s < 20
    assert demo.left() == []
    for shown in (
        "No Docker Engine answers",
        "SIMULATED NVIDIA GeForce RTX 4090",
        "usance quote",
        "step 4 of 4",
        "billed: record 3",
        "the job's own exit code: 0",
        "verified: ",
        "LEDGER ACCOUNT",
        "0 violations found",
        "Nothing is left",
    ):
        assert shown in demo.text
    offered = [line for line in demo.text.splitlines() if "RTX 4090" in line]
    assert offered
    assert all("SIMULATED" in line for line in offered)


@pytest.mark.parametrize(
    ("number", "where"),
    [
        (signal.SIGINT, "1. The operator"),
        (signal.SIGINT, "3. The seller"),
        (signal.SIGTERM, "step 2 of 4"),
    ],
)
def test_an_interrupted_demo_leaves_nothing(begin, number, where):
    demo = begin(NOWHERE)
    demo.until(where)
    demo.process.send_signal(number)
    assert demo.end() == 130, demo.text
    assert "Traceback" not in demo.text
    assert demo.left() == []


@pytest.mark.docker
@pytest.mark.parametrize("interrupted", [False, True])
def test_the_demo_with_docker(begin, docker_engine, docker_client, interrupted):
    with suppress(docker.errors.ImageNotFound):
        docker_client.images.remove(TINY, force=True)
    before = _things(docker_client)
    demo = begin(docker_engine.base_url)
    if interrupted:
        demo.until("step 2 of 4")
        demo.process.send_signal(signal.SIGINT)
    assert demo.end() == (130 if interrupted else 0), demo.text
    assert "container by Docker Engine" in demo.text
    assert demo.left() == []
    assert _things(docker_client) == before


def _processor_s() -> float:
    """What our children that have ended, and theirs, have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _things(client: docker.DockerClient) -> tuple[set[str | None], ...]:
    return (
        {found.id for found in client.containers.list(all=True)},
        {found.id for found in client.networks.list()},
        {found.id for found in client.volumes.list()},
        {found.id for found in client.images.list(all=True)},
    )
