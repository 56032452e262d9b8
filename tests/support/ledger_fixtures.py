"""A fresh ledger on each database, for whoever tests against one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ledger.engine import make_engine
from ledger.tables import create_all
from tests.rig.postgres import Postgres


@pytest.fixture
def sqlite_ledger(tmp_path: Path) -> Iterator[Engine]:
    engine = make_engine(f"sqlite:///{tmp_path}/ledger.db")
    create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def ledger_on_postgres(postgres_server: Postgres) -> str:
    """The name of a database to be copied: to make the tables takes several times as long."""
    postgres_server.create("ledger")
    engine = make_engine(postgres_server.url("ledger"))
    create_all(engine)
    engine.dispose()
    return "ledger"


@pytest.fixture
def postgres_ledger(postgres_server: Postgres, ledger_on_postgres: str) -> Iterator[Engine]:
    with postgres_server.database(ledger_on_postgres) as url:
        engine = make_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ledger_engine(request: pytest.FixtureRequest) -> Engine:
    """The same test on SQLite and on PostgreSQL."""
    engine: Engine = request.getfixturevalue(f"{request.param}_ledger")
    return engine


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    url: str = request.getfixturevalue("postgres_url")
    return url
