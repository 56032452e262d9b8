"""PostgreSQL itself crashes under a writer: what was answered is there after its recovery."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from ledger import audit, book, engine, tables
from ledger.chart import FEE
from ledger.engine import make_engine
from tests.rig.parts import MissingError, wait_until
from tests.rig.postgres import running_postgres
from tests.support import ledger as make
from tests.support import ledger_child
from tests.support.need import need

ROOT = Path(__file__).parents[2]
COUNT, SIZE = 3_000, 20


@pytest.mark.slow
@pytest.mark.postgres
def test_what_was_answered_survives_a_crash_of_the_server():
    try:
        with running_postgres(durable=True) as server, server.database() as url:
            _crash(url)
    except MissingError as missing:
        need(condition=False, what=missing.what, how=missing.how)


def _crash(url: str) -> None:
    ledger = make_engine(url)
    tables.create_all(ledger)
    make.start(ledger)
    jobs = [make.hold(2 + n, 100_000, job=f"job_{n}") for n in range(10)]
    make.post(ledger, make.deposit(1, 10**9), *jobs)
    ledger.dispose()
    orders = json.dumps({"url": url, "count": COUNT, "size": SIZE, "seed": 5})
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.support.ledger_child", orders], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert writer.stdout is not None
    for _ in range(5):
        writer.stdout.readline()
    conninfo = url.replace("+psycopg", "")
    with psycopg.connect(conninfo) as watcher:
        found = watcher.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert found is not None
    # One process of a server that dies so takes all with it, and the log is replayed.
    os.kill(found[0], signal.SIGKILL)
    out, err = writer.communicate(timeout=300)
    assert writer.returncode != 0, err
    done = 5 + len(out.split())

    def answers() -> bool:
        try:
            psycopg.connect(conninfo).close()
        except psycopg.OperationalError:
            return False
        return True

    wait_until(answers, "PostgreSQL has recovered")
    ledger = make_engine(url)
    with engine.reading(ledger) as conn:
        assert list(audit.audit(conn)) == []
        assert book.transfer_count(conn) >= 11 + done * SIZE
    for batch in ledger_child.captures(6, COUNT, SIZE):
        assert all(outcome.ok for outcome in make.post(ledger, *batch))
    with engine.reading(ledger) as conn:
        assert list(audit.audit(conn)) == []
        assert book.transfer_count(conn) == 11 + COUNT
        assert book.balance(conn, FEE) == COUNT // 2
    ledger.dispose()
