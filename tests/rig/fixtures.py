"""The rig as pytest fixtures. What the machine lacks skips a test or fails it: see tests/support/need.py."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import pynvml
import pytest

from tests.rig.dockerd import Engine, running_engine
from tests.rig.gpus import FOUR_GPUS
from tests.rig.nvidia_hook import HookSettings
from tests.rig.nvml.build import NvmlStub, build_library
from tests.rig.nvml.state import DATACENTRE_CARD, NvmlState
from tests.rig.parts import MissingError
from tests.rig.postgres import Postgres, running_postgres
from tests.rig.registry import Registry, running_registry
from tests.support.need import need


@contextmanager
def parts_needed() -> Iterator[None]:
    """Skip, or fail where nothing may be skipped, when the machine lacks what is started in the block."""
    try:
        yield
    except MissingError as missing:
        need(condition=False, what=missing.what, how=missing.how)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A real PostgreSQL of this test process's own."""
    with parts_needed(), running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """The URL (`postgresql+psycopg://…`) of a fresh, empty database."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture(scope="session")
def _session_engine() -> Iterator[Engine]:
    with parts_needed(), running_engine() as engine:
        yield engine


@pytest.fixture
def docker_engine(_session_engine: Engine) -> Iterator[Engine]:
    """A real Docker Engine with four stand-in GPUs, without containers and with its toolkit set as when new.

    The engine itself lives as long as the test run; images stay in it, containers do not.
    """
    _session_engine.set_gpus(FOUR_GPUS)
    _session_engine.set_hook(HookSettings())
    yield _session_engine
    _session_engine.remove_containers()


@pytest.fixture
def docker_client(docker_engine: Engine) -> Iterator[docker.DockerClient]:
    with docker_engine.client() as client:
        yield client


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """A real image registry on the loopback interface, empty at first."""
    with parts_needed(), running_registry() as server:
        yield server


@pytest.fixture(scope="session")
def _nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with parts_needed():
        return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml_stub(_nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NvmlStub]:
    """NVIDIA's library without a GPU in the machine yet: `.state` adds them, `.env()` is for child processes.

    In this process pynvml finds it after `.load()`, in this test and in all later ones.
    """
    stub = NvmlStub(library=_nvml_library, state=NvmlState(tmp_path / "nvml-state"))
    monkeypatch.setenv("USANCE_NVML_STATE", str(stub.state.path))
    yield stub
    NvmlState(stub.state.path)  # whatever the test made fail works again
    with suppress(pynvml.NVMLError):
        while True:
            pynvml.nvmlShutdown()


@pytest.fixture
def two_cards(nvml_stub: NvmlStub, monkeypatch: pytest.MonkeyPatch) -> NvmlStub:
    """A consumer card and a data centre's, found by every process that this one starts."""
    for name, value in nvml_stub.env().items():
        monkeypatch.setenv(name, value)
    nvml_stub.state.add_gpu(FOUR_GPUS[0])
    nvml_stub.state.add_gpu(FOUR_GPUS[1], DATACENTRE_CARD)
    return nvml_stub
