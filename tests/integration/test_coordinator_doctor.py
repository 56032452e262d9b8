"""`usance-coordinator doctor` on coordinators with faults that were made on purpose."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from coordinator import identity
from coordinator.__main__ import main
from coordinator.commands import Exit
from runtime.clock import SystemClock
from tests.rig.parts import free_port, spawn, stop, wait_until

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coordinator") / "data"
    assert main(["init", "--data-dir", str(folder)]) == 0
    return folder


@pytest.fixture
def made(once: Path, tmp_path: Path) -> Path:
    """A coordinator that nobody serves, at addresses of its own."""
    folder = Path(shutil.copytree(once, tmp_path / "data"))
    ports = free_port(), free_port()
    (folder / "coordinator.toml").write_text(
        f'market = "127.0.0.1:{ports[0]}"\nhosts = "127.0.0.1:{ports[1]}"\n'
        'market_public = "market.example.org:7410"\nhosts_public = "market.example.org:7411"\n'
    )
    return folder


@pytest.fixture
def doctor(made: Path, capsys: pytest.CaptureFixture[str]):
    """Run it; the exit code, and each check's verdict and words."""

    def run(*flags: str) -> tuple[int, dict[str, tuple[str, str]]]:
        capsys.readouterr()
        code = main(["doctor", "--data-dir", str(made), "--json", *flags])
        findings = json.loads(capsys.readouterr().out)["findings"]
        return code, {one["check"]: (one["verdict"], one["found"]) for one in findings}

    return run


def test_one_that_is_well_but_does_not_run(doctor, made, capsys):
    code, found = doctor()
    assert code == Exit.OK
    assert found.pop("coordinator") == ("doubt", "none runs")
    found.pop("clock", None)  # the machine's own affair
    assert {verdict for verdict, _ in found.values()} == {"good"}
    assert found["market address"][1].endswith(" is free")
    # For people, the same as a table.
    assert main(["doctor", "--data-dir", str(made)]) == Exit.OK
    assert "doubt  coordinator" in capsys.readouterr().out


def test_files_that_others_can_read_or_that_are_gone(doctor, made):
    (made / "ca.key").chmod(0o644)
    (made / "token.key").unlink()
    made.chmod(0o755)
    code, found = doctor()
    assert code == Exit.FAILED
    assert found[str(made / "ca.key")] == ("bad", "others on this machine can read it")
    assert found[str(made / "token.key")] == ("bad", "it is not there")
    assert found["data folder"][0] == "bad"


def test_an_authority_that_ended_or_has_another_ones_key(doctor, made, tmp_path):
    now_ms = SystemClock().wall_ms()
    for name in ("ca.key", "ca.pem"):
        (made / name).unlink()
    identity.create(made, now_ms - (identity.AUTHORITY_DAYS + 2) * DAY_MS)
    assert doctor()[1]["authority"] == ("bad", "its certificate is over")
    identity.create(tmp_path, now_ms)
    shutil.copy(tmp_path / "ca.key", made)
    assert doctor()[1]["authority"] == ("bad", f"{made}/ca.key: not the key of ca.pem")


def test_a_database_that_is_away_older_newer_or_empty(doctor, made):
    file = made / "usance.db"

    def revision(name: str) -> None:
        engine = create_engine(f"sqlite:///{file}")
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :name"), {"name": name})
        engine.dispose()

    revision("0009")
    assert doctor()[1]["database"][0] == "doubt"
    revision("9999")
    assert "newer than this program's" in doctor()[1]["database"][1]
    file.unlink()
    assert doctor()[1]["database"] == ("bad", "the file is not there")
    assert not file.exists(), "to look is not to make"
    file.touch()
    assert doctor()[1]["database"][1].endswith("is empty")
    away = f"postgresql+psycopg://somebody:secret@127.0.0.1:{free_port()}/usance"
    code, found = doctor("--database", away)
    assert (code, found["database"][0]) == (Exit.FAILED, "bad")
    assert "Connection refused" in found["database"][1]


def test_an_address_that_somebody_else_has(doctor, made):
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        code, found = doctor("--hosts", f"127.0.0.1:{port}")
    assert (code, found["hosts address"]) == (Exit.FAILED, ("bad", f"127.0.0.1:{port}: is in use"))


def test_a_backup_that_is_old(doctor, made, tmp_path):
    assert "backup" not in doctor()[1]
    assert main(["backup", str(tmp_path / "b.tar"), "--data-dir", str(made)]) == Exit.OK
    assert doctor()[1]["backup"] == ("good", "0 hours old")
    (made / "last-backup").touch()
    three_days_ago_s = (SystemClock().wall_ms() - 3 * DAY_MS) / 1_000
    os.utime(made / "last-backup", (three_days_ago_s, three_days_ago_s))
    assert doctor()[1]["backup"] == ("doubt", "the last one is 72 hours old")


def test_settings_are_told_with_their_lines_and_the_rest_is_looked_at(doctor, made):
    with (made / "coordinator.toml").open("a") as file:
        file.write("fee_pmm = 1\n")
    code, found = doctor()
    assert code == Exit.FAILED
    assert found["settings"][1].endswith("line 5: fee_pmm: there is no such setting; did you mean fee_ppm?")
    assert found["authority"][0] == "good"


def test_a_folder_without_a_coordinator(tmp_path, capsys):
    assert main(["doctor", "--data-dir", str(tmp_path / "none")]) == Exit.FAILED
    assert "usance-coordinator init" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def served(made: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    log = tmp_path / "log"
    process = spawn([sys.executable, "-m", "coordinator", "run", "--data-dir", str(made)], log=log)
    try:
        wait_until(lambda: b"ready market=" in log.read_bytes(), "the coordinator is ready")
        yield process
    finally:
        stop(process)


def test_one_that_serves_answers(doctor, made, served, capsys):
    code, found = doctor()
    assert code == Exit.OK
    assert found["coordinator"] == ("good", f"process {served.pid} serves")
    assert found["market address"][1].endswith(" answers")
    assert found["hosts address"][1].endswith(" answers")
    assert main(["health", "--data-dir", str(made)]) == Exit.OK
    assert main(["health", "--data-dir", str(made), "--market", f"127.0.0.1:{free_port()}"]) == Exit.FAILED
    assert capsys.readouterr().out.startswith("it serves\nno answer: ")
    code, found = doctor("--market", f"127.0.0.1:{free_port()}")
    assert (code, found["market address"][0]) == (Exit.FAILED, "bad")
