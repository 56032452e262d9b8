"""The rig's PostgreSQL is real, gives each test its own database, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.rig.parts import wait_until
from tests.rig.postgres import Postgres, running_postgres

pytestmark = pytest.mark.postgres


def test_a_fresh_database_is_empty_and_writable(postgres_url):
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        assert sa.inspect(connection).get_table_names() == []
        connection.exec_driver_sql("CREATE TABLE t (n bigint PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO t VALUES (9223372036854775807)")
        assert connection.exec_driver_sql("SELECT n FROM t").scalar_one() == 2**63 - 1
    engine.dispose()


def test_two_databases_do_not_see_each_other_and_go_with_their_clients(postgres_server: Postgres):
    with postgres_server.database() as first, postgres_server.database() as second:
        left_open = sa.create_engine(first).connect()
        left_open.exec_driver_sql("CREATE TABLE only_here (n int)")
        other = sa.create_engine(second)
        assert sa.inspect(other).get_table_names() == []
        other.dispose()
    left_open.invalidate()
    left_open.close()


def test_nothing_listens_on_a_port_and_nothing_is_left(postgres_server):
    with running_postgres(durable=True) as server:
        folder = server.socket_folder.parent
        engine = sa.create_engine(server.url("postgres"))
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW listen_addresses").scalar_one() == ""
            assert connection.exec_driver_sql("SHOW fsync").scalar_one() == "on"
            pid = _postmaster(folder)
        engine.dispose()
    assert not Path(f"/proc/{pid}").exists()
    assert not folder.exists()


def test_the_server_dies_with_a_killed_owner_and_its_folder_is_swept(postgres_server):
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().decode().strip())
    pid = _postmaster(folder)
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the server follows its owner")
    with running_postgres():
        assert not folder.exists()


_OWNER = """
import sys
from tests.rig.postgres import Postgres
print(Postgres().socket_folder.parent, flush=True)
sys.stdin.read()
"""


def _postmaster(folder: Path) -> int:
    pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, 0)
    return pid
