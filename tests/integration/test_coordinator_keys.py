"""Where the coordinator's own keys are kept, and how those of secrets follow one another."""

import asyncio
import logging
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator import app, identity, passes, rotation
from coordinator.__main__ import main
from coordinator.commands import Exit
from coordinator.rotation import Step
from coordinator.services import vault
from coordinator.settings import Settings, SettingsError
from runtime import private
from runtime.clock import SystemClock
from runtime.private import PrivateError
from tests.support.running_coordinator import Running, copy_of, eventually, job_spec, running
from tests.support.scripts import Play
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

CLOCK = SystemClock()
CANARY = b"canary-51ed"


def key_in(path: Path) -> bytes:
    """As the operator would make one."""
    scratch = path.with_suffix(".scratch")
    scratch.mkdir()
    identity.create(scratch, CLOCK.wall_ms())
    key = private.read(scratch / "ca.key")
    private.write(path, key)
    return key


def test_a_command_of_the_operators_keeps_the_authority(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Made by it, served with it, followed by another; in no file of ours and in no line of the log."""
    elsewhere = tmp_path / "elsewhere"
    key, command = key_in(elsewhere), ("cat", str(elsewhere))
    settings = Settings(data_dir=tmp_path / "data", ca_key_command=command)
    app.initialise(settings)

    async def serve() -> None:
        async with running(replace(settings, beat_interval_ms=1_000)) as market:
            await (await market.agent()).beat()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(serve())
        rotation.run(settings, Step.BEGIN, CLOCK, force=False)
        with pytest.raises(SettingsError, match=r"ca-next\.key where cat finds it, so that it prints"):
            rotation.run(settings, Step.FINISH, CLOCK, force=True)
        private.replace(elsewhere, private.read(settings.data_dir / "ca-next.key"))
        with pytest.raises(PrivateError, match=r"what cat prints: not the key of ca\.pem"):
            identity.load(settings.data_dir, CLOCK.wall_ms(), settings.ca_key_source)
        rotation.run(settings, Step.FINISH, CLOCK, force=True)
        identity.load(settings.data_dir, CLOCK.wall_ms(), settings.ca_key_source)
    assert {path.name for path in settings.data_dir.glob("*.key")} == {"token.key", "secrets.key"}
    secret = key.decode().splitlines()[1]
    assert secret not in caplog.text
    assert not [path for path in settings.data_dir.rglob("*") if path.is_file() and key in path.read_bytes()]


def test_a_path_of_the_operators_keeps_it_too(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", ca_key=str(tmp_path / "elsewhere"))
    app.initialise(settings)
    assert not (settings.data_dir / "ca.key").exists()
    first = identity.load(settings.data_dir, CLOCK.wall_ms(), settings.ca_key_source)
    rotation.run(settings, Step.BEGIN, CLOCK, force=False)
    rotation.run(settings, Step.FINISH, CLOCK, force=True)
    second = identity.load(settings.data_dir, CLOCK.wall_ms(), settings.ca_key_source)
    assert first.authority_pem != second.authority_pem
    assert {path.name for path in settings.data_dir.glob("*.key")} == {"token.key", "secrets.key"}


@pytest.mark.parametrize("name", ["ca.key", "token.key", "secrets.key"])
def test_a_key_that_others_may_read_starts_nothing(
    name: str, template: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = copy_of(template, tmp_path / "data")
    (settings.data_dir / name).chmod(0o640)
    ports = ["--market", "127.0.0.1:0", "--hosts", "127.0.0.1:0"]
    assert main(["run", "--data-dir", str(settings.data_dir), *ports]) == Exit.USAGE
    assert f"{name}: others may read it; chmod 600 it" in capsys.readouterr().err


def test_what_is_no_key_is_named_and_not_shown(template: Settings, tmp_path: Path) -> None:
    settings = copy_of(template, tmp_path / "data")
    private.replace(settings.data_dir / "ca.key", b"-----BEGIN PRIVATE KEY-----\ncanary\n")
    with pytest.raises(PrivateError, match=r"ca\.key: not a PEM key without a password") as caught:
        identity.load(settings.data_dir, CLOCK.wall_ms())
    assert "canary" not in str(caught.value)


def test_a_key_of_secrets_follows_another_and_no_job_notices(play: Play) -> None:
    async def script(market: Running) -> None:
        settings = market.settings
        request = m.SubmitJobRequest(
            request_id="0f8b6b0e-7c55-4d0a-9f3f-000000000001",
            spec=job_spec(),
            confidential=t.Confidential(secrets=[t.Secret(name="TOKEN", value=CANARY)]),
        )
        buyer = market.buyer
        job = (await buyer.ask(buyer.market.SubmitJob, request)).job
        before = box(settings)
        with pytest.raises(SettingsError, match="no rotation has begun"):
            rotation.run_secrets(settings, Step.FINISH)
        assert "secrets.key. Next" in rotation.run_secrets(settings, Step.BEGIN)
        with pytest.raises(SettingsError, match="begun already"):
            rotation.run_secrets(settings, Step.BEGIN)
        with pytest.raises(SettingsError, match="restart the coordinator first"):
            rotation.run_secrets(settings, Step.FINISH)
        await market.halt()
        await market.serve()
        # Whoever did not hear the answer asks again, and nothing is done twice.
        assert (await buyer.ask(buyer.market.SubmitJob, request)).job.job_id == job.job_id

        async def sealed_anew() -> bool:
            market.clock.advance(passes.UPKEEP_EVERY_MS)
            return bool(box(settings) != before)

        await eventually(sealed_anew, "it is sealed with the new key")
        assert "old keys" in rotation.run_secrets(settings, Step.FINISH)
        assert len(private.read(settings.data_dir / "secrets.key").splitlines()) == 1
        await market.halt()
        await market.serve()
        agent = await market.agent()
        told = (await agent.taken()).wanted.confidential
        assert [secret.value for secret in told.secrets] == [CANARY]

    play(script)


def test_what_is_sealed_with_an_old_key_holds_up_the_end_of_a_rotation(play: Play) -> None:
    async def script(market: Running) -> None:
        buyer, settings = market.buyer, market.settings
        confidential = t.Confidential(secrets=[t.Secret(name="TOKEN", value=CANARY)])
        request = m.SubmitJobRequest(
            request_id="0f8b6b0e-7c55-4d0a-9f3f-000000000002", spec=job_spec(), confidential=confidential
        )
        await buyer.ask(buyer.market.SubmitJob, request)
        rotation.run_secrets(settings, Step.BEGIN)
        rotation.note_sealing(settings, vault.kept(settings.secrets_key_source))
        with pytest.raises(SettingsError, match="1 jobs' secrets are sealed with old keys"):
            rotation.run_secrets(settings, Step.FINISH)

    play(script)


def test_keys_that_a_command_prints_are_rotated_where_they_are_kept(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, secrets_key_command=("printf", "ab" * 32))
    with pytest.raises(SettingsError, match="printf prints the keys: have it print a fresh one first"):
        rotation.run_secrets(settings, Step.BEGIN)
    assert vault.kept(settings.secrets_key_source).keys == (b"\xab" * 32,)


def box(settings: Settings) -> Any:
    with sqlite3.connect(settings.data_dir / "usance.db") as database:
        return database.execute("SELECT box FROM job_sealed").fetchone()[0]
