"""The code of before the newest migration works on today's schema: a new version can be taken back.

It is the code itself, from the repository's history, with its own tests of its store: they pass on a database
that today's migrations have made.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.store import migrate
from ledger.engine import make_engine
from tests.support.need import need_history

REPOSITORY = Path(__file__).parents[2]
VERSIONS = "coordinator/store/migrations/versions"
TESTS = ("test_store.py", "test_store_many.py", "test_store_books.py")
# What that code's tests ask about a schema of their own, and not about one that they find.
NOT_ASKED = "held-back and not makes and not every_verb and not postgres"
# Where that code would make its schema, it finds today's.
PLUGIN = """
import sqlite3
from coordinator.store import migrate

def found(engine):
    connection = engine.raw_connection()
    try:
        sqlite3.connect({made!r}).backup(connection.driver_connection)
    finally:
        connection.close()

    uses.append(engine.url)

uses = []
migrate.upgrade = found

def pytest_unconfigure():
    print("found today's schema", len(uses), "times")
"""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the last commit before the newest migration."""
    folder = tmp_path_factory.mktemp("earlier")
    newest = max(path.name for path in (REPOSITORY / VERSIONS).glob("[0-9]*.py"))
    added = _git("log", "--diff-filter=A", "--format=%H", "--", f"{VERSIONS}/{newest}").decode().split()
    # One that is not committed yet has all of the history before it.
    commit = f"{added[-1]}^" if added else "HEAD"
    whole = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, check=False, capture_output=True)
    need_history(condition=whole.returncode == 0)
    subprocess.run(["tar", "--extract", "--directory", folder], input=whole.stdout, check=True)
    assert not (folder / VERSIONS / newest).exists()
    return folder


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, check=False, capture_output=True)
    need_history(condition=done.returncode == 0)
    return done.stdout


@pytest.mark.slow
def test_what_the_earlier_code_does_it_does_on_todays_schema(earlier: Path, tmp_path: Path) -> None:
    made = tmp_path / "today.db"
    engine = make_engine(f"sqlite:///{made}")
    migrate.upgrade(engine)
    engine.dispose()
    (earlier / "todays_schema.py").write_text(PLUGIN.format(made=str(made)))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "todays_schema", "-p", "no:cacheprovider"),
            *("-k", NOT_ASKED, *(f"tests/contract/{name}" for name in TESTS)),
        ],
        cwd=earlier,
        env={**os.environ, "PYTHONPATH": f"{earlier}:{earlier / 'proto'}", "USANCE_REQUIRE_ALL": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
    assert "found today's schema 3 times" in done.stdout, "once for each file"
    assert done.stdout.count(".") > 30, "and they did something with it"
