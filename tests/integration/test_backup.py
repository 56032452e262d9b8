"""`usance-coordinator backup` and `restore` as an operator meets them, on SQLite."""

import json
import shutil
import sqlite3
import stat
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.__main__ import main
from coordinator.domain.states import JobState
from coordinator.keeping import backup, copies
from coordinator.keeping.commands import EXIT_DONE, EXIT_FAILED, EXIT_REFUSED
from coordinator.settings import Settings
from coordinator.store import migrate, tables
from coordinator.store.ports_books import hold_id
from coordinator.store.seat import Seat
from coordinator.store.transaction import SqlTransaction
from ledger.engine import make_engine
from ledger.entries import hold
from tests.support.running_coordinator import copy_of
from tests.support.store_fixtures import BUYER, seed
from tests.support.values import attempt, job

Text = pytest.CaptureFixture[str]


@pytest.fixture
def data(template: Settings, tmp_path: Path) -> Path:
    """A coordinator's folder with a market in it: a running job, and credits."""
    folder = copy_of(template, tmp_path / "data").data_dir
    engine = make_engine(f"sqlite:///{folder}/usance.db")
    with engine.begin() as connection:
        tx = SqlTransaction(connection)
        seed(tx)
        held = hold(
            transfer_id=hold_id("job_1"),
            account_id=BUYER,
            job_id="job_1",
            amount_micro=job().spec.budget_micro,
            event_ms=1,
        )
        tx.post([held], 1)
        tx.insert_attempt(attempt())
        assert tx.save_job(job(), job(state=JobState.STARTING))
    engine.dispose()
    return folder


@pytest.fixture
def made(data: Path, tmp_path: Path, capsys: Text) -> Path:
    file = tmp_path / "b.tar"
    assert run("backup", file, data) == EXIT_DONE
    capsys.readouterr()
    return file


def run(command: str, file: Path | None, data: Path, *flags: str) -> int:
    return main([command, *([str(file)] if file else []), "--data-dir", str(data), *flags])


def rows(data: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(data / "usance.db")) as connection:
        return connection.execute(query).fetchall()


def names(file: Path) -> list[str]:
    with tarfile.open(file) as tar:
        return tar.getnames()


def test_what_is_kept_is_whole_and_the_keys_lie_apart(data: Path, tmp_path: Path, capsys: Text) -> None:
    file = tmp_path / "b.tar"
    run("backup", file, data, "--json")
    said = json.loads(capsys.readouterr().out)
    manifest = said["manifest"]
    assert names(file) == ["manifest.json", "usance.db", "ca.pem", "coordinator.toml"]
    assert sorted(names(Path(said["keys_file"]))) == ["ca.key", "operator.token", "secrets.key", "token.key"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, Path(said["keys_file"]))] == [0o600] * 2
    assert manifest["revision"] == migrate.head()
    assert (manifest["counts"]["job"], manifest["transfers"]) == (1, 2)
    assert manifest["parts"]["usance.db"]["bytes"] == (data / "usance.db").stat().st_size
    assert len(manifest["head"]) == 64
    assert manifest["sealed_to"] == 0, "nothing was sealed for it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "b.tar.keys", "data"]


def test_the_copy_is_of_one_moment_however_much_is_written(data: Path, tmp_path: Path) -> None:
    """It is made in small steps while another connection commits between them."""
    source, target = data / "usance.db", tmp_path / "copy.db"
    with closing(sqlite3.connect(source)) as filler:
        filler.execute("CREATE TABLE filled (number INTEGER, other INTEGER, text TEXT)")
        filler.executemany("INSERT INTO filled VALUES (0, 0, ?)", [("x" * 3_000,)] * 3_000)
        filler.commit()
    steps = list[int]()

    def write(done: int, whole: int) -> None:
        del whole
        steps.append(done)
        with closing(sqlite3.connect(source)) as other:
            other.execute("UPDATE filled SET number = number + 1, other = other - 1 WHERE rowid % 7 = 0")
            other.commit()

    pages, copies.PAGES_A_STEP = copies.PAGES_A_STEP, 256
    try:
        thread = threading.Thread(target=copies.copy, args=(source, target, write))
        thread.start()
        thread.join(30)
    finally:
        copies.PAGES_A_STEP = pages
    assert steps == sorted(set(steps)), "it was never begun anew"
    assert len(steps) > 5
    copies.check(target)
    with closing(sqlite3.connect(target)) as copied:
        assert copied.execute("SELECT DISTINCT number, other FROM filled").fetchall() == [(0, 0)]


def test_what_comes_back_is_marked_and_says_what_it_cannot_know(
    made: Path, data: Path, tmp_path: Path, capsys: Text
) -> None:
    shutil.rmtree(data)
    assert run("restore", made, data) == EXIT_DONE
    said = capsys.readouterr().out
    assert "jobs    1 had not ended: 1 had a host" in said
    assert "hosts   1 are known" in said
    for name in ("ca.key", "secrets.key", "token.key", "operator.token", "usance.db"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600, name
    assert (data / "ca.pem").exists()
    told = rows(data, "SELECT job_id, host_id, number FROM event WHERE kind = 'restored' ORDER BY number")
    assert told[0][0] == "job_1"
    assert told[1][1] == "host_1"
    assert told[0][2] == 1_000_000_003, "the numbers of what was lost are not told again"
    assert main(["audit", "--data-dir", str(data)]) == EXIT_DONE
    audited = capsys.readouterr()
    assert "event" not in audited.out
    assert "of 1 attempts that were live: 0 went on, 0 ended nobody knows how, 1 not heard of" in audited.err
    assert sorted(path.name for path in data.iterdir() if path.name.startswith(".")) == []


def test_a_live_market_is_not_restored_over(made: Path, data: Path, capsys: Text) -> None:
    before = (data / "usance.db").read_bytes()
    assert run("restore", made, data) == EXIT_REFUSED
    assert "--replace puts it aside" in capsys.readouterr().err
    seat = Seat(data, "sqlite://")
    assert seat.take()
    try:
        assert run("restore", made, data, "--replace") == EXIT_REFUSED
        assert "stop it first" in capsys.readouterr().err
        assert run("restore", None, data, "--mark-only") == EXIT_REFUSED
    finally:
        seat.leave()
    assert (data / "usance.db").read_bytes() == before


def test_what_is_there_is_put_aside_and_its_keys_stay(made: Path, data: Path, capsys: Text) -> None:
    (data / "ca.key").write_text("rotated since")
    assert run("restore", made, data, "--replace", "--json") == EXIT_DONE
    said = json.loads(capsys.readouterr().out)
    assert said["kept"] == [
        "ca.pem",
        "coordinator.toml",
        "ca.key",
        "token.key",
        "secrets.key",
        "operator.token",
    ]
    assert (data / "ca.key").read_text() == "rotated since"
    assert Path(said["put_aside"]).exists()
    assert "usance_tok" not in json.dumps(said)


def test_tokens_can_be_ended_with_it_and_the_operator_has_a_new_one(
    made: Path, data: Path, template: Settings, capsys: Text
) -> None:
    run("restore", made, data, "--replace", "--revoke-tokens")
    assert "1 of before were revoked" in capsys.readouterr().out
    assert (data / "operator.token").read_text() != (template.data_dir / "operator.token").read_text()
    assert rows(data, "SELECT count(*) FROM api_token WHERE revoked_ms IS NULL") == [(1,)]


DAMAGES = {
    "a byte of the database": lambda raw: raw.replace(b"acct_seller", b"acct_sellor", 1),
    "its end is missing": lambda raw: raw[: len(raw) // 2],
    "no tar at all": lambda _: b"backup",
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_backup_is_refused_and_nothing_is_left_of_it(
    made: Path, data: Path, tmp_path: Path, capsys: Text, name: str
) -> None:
    made.write_bytes(DAMAGES[name](made.read_bytes()))
    assert run("restore", made, tmp_path / "new") == EXIT_FAILED
    assert str(made) in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["coordinator.lock"]


def test_a_backup_that_holds_something_else_is_refused(made: Path, tmp_path: Path, capsys: Text) -> None:
    with tarfile.open(made, "a") as tar:
        tar.add(__file__, arcname="../escaped")
    assert run("restore", made, tmp_path / "new") == EXIT_FAILED
    assert "'../escaped'" in capsys.readouterr().err
    assert not (tmp_path / "escaped").exists()


def test_without_its_keys_it_is_another_coordinator_and_only_if_that_is_wanted(
    made: Path, data: Path, tmp_path: Path, capsys: Text
) -> None:
    backup.keys_of(made).unlink()
    assert run("restore", made, tmp_path / "new") == EXIT_REFUSED
    assert "--without-keys" in capsys.readouterr().err
    assert run("restore", made, tmp_path / "new", "--without-keys") == EXIT_DONE
    assert (tmp_path / "new/ca.pem").read_bytes() != (data / "ca.pem").read_bytes()
    assert (tmp_path / "new/secrets.key").exists()


def test_the_keys_of_another_backup_are_refused(made: Path, data: Path, tmp_path: Path, capsys: Text) -> None:
    (data / "ca.key").write_text("another")
    run("backup", tmp_path / "second.tar", data)
    keys = str(backup.keys_of(tmp_path / "second.tar"))
    assert run("restore", made, tmp_path / "new", "--keys", keys) == EXIT_FAILED
    assert "not the one that was made with this backup" in capsys.readouterr().err


def test_a_backup_of_a_newer_program_is_refused_and_of_an_older_one_brought_up_to_date(
    data: Path, tmp_path: Path, capsys: Text
) -> None:
    with closing(sqlite3.connect(data / "usance.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    file = tmp_path / "newer.tar"
    run("backup", file, data)
    assert run("restore", file, tmp_path / "new") == EXIT_REFUSED
    assert "is of a newer version (schema 9999" in capsys.readouterr().err


def test_nothing_is_written_over_and_what_is_missing_is_named(
    made: Path, data: Path, tmp_path: Path, capsys: Text
) -> None:
    before = made.read_bytes()
    assert run("backup", made, data) == EXIT_REFUSED
    assert f"{made} exists" in capsys.readouterr().err
    assert made.read_bytes() == before
    assert run("restore", tmp_path / "none.tar", data) == EXIT_REFUSED
    assert run("restore", None, data) == EXIT_REFUSED
    assert "name a backup, or --mark-only" in capsys.readouterr().err
    assert run("backup", tmp_path / "x.tar", tmp_path / "nowhere") == EXIT_REFUSED


def test_a_database_that_came_back_by_other_means_is_marked(data: Path, capsys: Text) -> None:
    assert run("restore", None, data, "--mark-only") == EXIT_DONE
    assert "Restored by other means" in capsys.readouterr().out
    assert run("restore", None, data, "--mark-only", "--json") == EXIT_DONE
    assert json.loads(capsys.readouterr().out)["restored"]["number"] == 2


def test_a_database_beyond_us_is_kept_if_that_was_promised_and_refused_if_not(
    data: Path, capsys: Text
) -> None:
    """So that a new version can be taken back: docs/upgrading.md."""
    head = int(migrate.head())
    for oldest, exit_code in ((head, EXIT_DONE), (head + 1, EXIT_REFUSED)):
        with closing(sqlite3.connect(data / "usance.db")) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
            connection.execute("UPDATE counter SET value = ? WHERE name = ?", (oldest, tables.OLDEST_PROGRAM))
            connection.commit()
        assert main(["audit", "--data-dir", str(data)]) == exit_code
    assert "start the newer one again" in capsys.readouterr().err
