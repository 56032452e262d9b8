"""The rig as pytest fixtures. What the machine lacks skips a test or fails it: see tests/support/need.py."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

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
