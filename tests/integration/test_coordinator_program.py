"""`usance-coordinator` as an operator meets it: init, audit, and settings that can't be used."""

import sqlite3
import stat
from pathlib import Path

import pytest

from coordinator.__main__ import main
from coordinator.commands import Exit


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "data"
    assert main(["init", "--data-dir", str(folder)]) == 0
    said = capsys.readouterr().out
    assert f"usance-coordinator run --data-dir {folder}" in said
    assert (folder / "operator.token").read_text().strip() not in said, "secrets go into files"
    return folder


def test_secrets_are_for_their_owner_alone(made: Path) -> None:
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    for name in ("ca.key", "token.key", "operator.token"):
        assert stat.S_IMODE((made / name).stat().st_mode) == 0o600, name


def test_a_second_init_is_refused_and_changes_nothing(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    assert main(["init", "--data-dir", str(made)]) == Exit.USAGE
    assert "ca.key" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before


def test_an_audit_says_what_it_looked_at(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--data-dir", str(made)]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "0 transfers checked, 0 violations\n")


def test_an_audit_that_finds_something_fails(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connection = sqlite3.connect(made / "usance.db")
    connection.execute("UPDATE counter SET value = 7")
    connection.commit()
    connection.close()
    assert main(["audit", "--data-dir", str(made)]) == Exit.FAILED
    assert capsys.readouterr().out == "2 events are numbered up to 2, and the counter says 7\n"


def test_an_audit_of_nothing_is_no_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It had made an empty database and found it in order."""
    assert main(["audit", "--data-dir", str(tmp_path)]) == Exit.USAGE
    assert "no coordinator was made here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--fee-ppm", "1000001"], "--fee-ppm: must be a whole number from 0 to 1000000"),
        (["--market", "nowhere"], "--market: an address as host:port"),
        (["--beat-interval-ms", "1"], "--beat-interval-ms"),
        (["--database", "mysql://x"], "is not supported"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    made: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert main(["run", "--data-dir", str(made), *flags]) == Exit.USAGE
    assert words in capsys.readouterr().err


def test_to_run_what_was_never_made_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--data-dir", str(tmp_path)]) == Exit.USAGE
    assert "no coordinator was made here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
