"""One coordinator at a time: in one folder, and on one database from several folders."""

from pathlib import Path

import pytest
from sqlalchemy import text

from coordinator.store.seat import Seat
from ledger.engine import make_engine


def test_the_seat_of_a_folder_is_taken_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'usance.db'}"
    first, second = Seat(tmp_path, url), Seat(tmp_path, url)
    assert second.holder() == "a process elsewhere"
    assert first.take()
    assert first.take(), "to ask again changes nothing"
    assert not second.take()
    assert second.holder().startswith("process ")
    assert first.is_kept()
    first.leave()
    assert second.take()
    second.leave()
    second.leave()


@pytest.mark.postgres
def test_the_seat_of_a_database_is_taken_once_from_wherever(tmp_path: Path, postgres_url: str) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    first, second = (Seat(folder, postgres_url) for folder in folders)
    assert first.take()
    assert not second.take()
    first.leave()
    assert second.take()
    assert not first.take()
    first.leave()
    second.leave()


@pytest.mark.postgres
def test_a_lock_that_went_with_its_session_is_taken_again_unless_another_has_it(
    tmp_path: Path, postgres_url: str
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    first, second = (Seat(folder, postgres_url) for folder in folders)
    engine = make_engine(postgres_url)

    def cut() -> None:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        with engine.begin() as connection:
            connection.execute(text(f"{others} AND datname = current_database()"))
        engine.dispose()

    try:
        assert first.take()
        assert first.is_kept()
        cut()
        assert first.is_kept(), "nobody was faster"
        assert not second.take()
        cut()
        assert second.take()
        assert not first.is_kept()
        assert not first.is_kept(), "nor later"
    finally:
        first.leave()
        second.leave()
