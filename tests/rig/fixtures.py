"""The rig as pytest fixtures. What the machine lacks skips a test or fails it: see tests/support/need.py."""

from collections.abc import Iterator
from contextlib import contextmanager

import docker
import pytest

from tests.rig.dockerd import Engine, running_engine
from tests.rig.gpus import FOUR_GPUS
from tests.rig.nvidia_hook import HookSettings
from tests.rig.parts import MissingError
from tests.rig.postgres import Postgres, running_postgres
from tests.support.need import need


@contextmanager
def _parts_needed() -> Iterator[None]:
    try:
        yield
    except MissingError as missing:
        need(condition=False, what=missing.what, how=missing.how)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A real PostgreSQL of this test process's own."""
    with _parts_needed(), running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """The URL (`postgresql+psycopg://…`) of a fresh, empty database."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture(scope="session")
def _session_engine() -> Iterator[Engine]:
    with _parts_needed(), running_engine() as engine:
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
