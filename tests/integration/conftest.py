"""A coordinator of its own for each script of a test."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.settings import Settings
from tests.rig.postgres import Postgres
from tests.support.fake_market import FakeMarket
from tests.support.running_coordinator import copy_of, prepare, running
from tests.support.scripts import Play, Script


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return prepare(tmp_path_factory.mktemp("template") / "data")


@pytest.fixture(scope="session")
def template_on_postgres(postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    postgres_server.create("market")
    return prepare(tmp_path_factory.mktemp("template") / "data", postgres_server.url("market"))


@pytest.fixture
def on_postgres(
    postgres_server: Postgres, template_on_postgres: Settings, tmp_path: Path
) -> Iterator[Settings]:
    """A fresh coordinator on PostgreSQL."""
    with postgres_server.database(like="market") as url:
        yield replace(copy_of(template_on_postgres, tmp_path / "data"), database=url)


@pytest.fixture
def fake_market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMarket]:
    """A scripted market, and an environment in which the command line speaks to it."""
    fake = FakeMarket(tmp_path)
    monkeypatch.setenv("USANCE_PROFILE_FILE", str(tmp_path / "profile.toml"))
    for name, value in fake.environment.items():
        monkeypatch.setenv(name, value)
    yield fake
    fake.stop()


@pytest.fixture
def play(template: Settings, tmp_path: Path) -> Play:
    """Run a script against a market of its own, on SQLite."""
    return lambda script: _play(script, copy_of(template, tmp_path / "data"))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def play_on_both(request: pytest.FixtureRequest) -> Play:
    """The same script on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        play: Play = request.getfixturevalue("play")
        return play
    settings = request.getfixturevalue("on_postgres")
    return lambda script: _play(script, settings)


def _play(script: Script, settings: Settings) -> None:
    async def whole() -> None:
        async with running(settings) as market:
            await script(market)

    asyncio.run(whole())
