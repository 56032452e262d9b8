"""Killed at every statement, alone and in a crowd: a batch is there or not, and each transfer once."""

import json
import multiprocessing
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ledger import audit, book, engine, seal, tables
from ledger.chart import FEE, earnings, wallet
from ledger.engine import make_engine
from tests.support import ledger as make
from tests.support import ledger_child
from tests.support.ledger import BUYER, SELLER, MemoryLedger, post

# Forks from a process that has imported everything, so that two hundred deaths take seconds.
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.support.ledger_child"])
ROOT = Path(__file__).parents[2]


def child(**orders: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.support.ledger_child", json.dumps(orders)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def expected(batches_done: int) -> dict[str, tuple[int, int]]:
    memory = MemoryLedger(make.accounts_of(BUYER, SELLER))
    for batch in ledger_child.scenario()[:batches_done]:
        memory.post(batch, 10)
    return {code: (account.seq, account.balance_micro) for code, account in memory.accounts.items()}


def stands(ledger: Engine) -> dict[str, tuple[int, int]]:
    with engine.reading(ledger) as conn:
        assert list(audit.audit(conn)) == []
        return make.heads(conn)


def check_killed_at_every_statement(url_of, told: Path) -> int:
    """Kill at each statement in turn, look, repeat the whole, look again. Returns how many there are."""
    die_at = 1
    while True:
        url, dispose = url_of(die_at)
        ledger = make_engine(url)
        tables.create_all(ledger)
        make.start(ledger)
        told.write_text("")
        process = FORK.Process(target=ledger_child.run_scenario, args=(url, die_at, str(told)))
        process.start()
        process.join(180)
        finished = process.exitcode == 0
        assert finished or process.exitcode == -signal.SIGKILL
        done = len(told.read_text().split())
        # A batch whose commit was told is there; one whose commit was not may be, but only whole.
        assert stands(ledger) in (expected(done), expected(done + 1))
        for number, batch in enumerate(ledger_child.scenario()):
            outcomes = post(ledger, *batch)
            assert [o.status.value for o in outcomes if not o.ok] == (
                [["insufficient_funds"], [], ["linked_failed", "insufficient_funds"], ["account_closed"]][
                    number
                ]
            )
        assert stands(ledger) == expected(4)
        ledger.dispose()
        dispose()
        if finished:
            return die_at
        die_at += 1


@pytest.mark.slow
def test_sqlite_keeps_all_or_nothing_wherever_it_is_killed(tmp_path: Path):
    def url_of(die_at: int):
        return f"sqlite:///{tmp_path}/{die_at}.db", lambda: None

    assert check_killed_at_every_statement(url_of, tmp_path / "told") > 40


@pytest.mark.slow
@pytest.mark.postgres
def test_postgresql_keeps_all_or_nothing_wherever_its_client_is_killed(postgres_server, tmp_path: Path):
    def url_of(die_at: int):
        database = postgres_server.database()
        url = database.__enter__()
        return url, lambda: database.__exit__(None, None, None)

    assert check_killed_at_every_statement(url_of, tmp_path / "told") > 15


def test_a_copy_of_the_files_taken_while_it_works_is_whole(tmp_path: Path):
    """As after a power cut: the database and its log as they are on the disk at one moment."""
    ledger = make_engine(f"sqlite:///{tmp_path}/live.db")
    tables.create_all(ledger)
    make.start(ledger)
    for number, batch in enumerate(ledger_child.scenario(), start=1):
        with ledger.connect() as conn, conn.begin() as transaction:
            book.post(conn, batch, 10)
            for suffix in ("", "-wal"):
                (tmp_path / f"copy{number}.db{suffix}").write_bytes(
                    (tmp_path / f"live.db{suffix}").read_bytes()
                )
            transaction.commit()
        copy = make_engine(f"sqlite:///{tmp_path}/copy{number}.db")
        assert stands(copy) == expected(number - 1)
        assert stands(ledger) == expected(number)
        copy.dispose()
    ledger.dispose()


@pytest.mark.slow
def test_processes_that_overlap_and_die_post_each_transfer_once(ledger_url: str):
    """Three writers with the same captures in other orders, one more that is killed again and again."""
    count, size = 1_500, 50
    ledger = make_engine(ledger_url)
    tables.create_all(ledger)
    make.start(ledger)
    jobs = [make.hold(2 + n, 100_000, job=f"job_{n}") for n in range(10)]
    assert all(outcome.ok for outcome in post(ledger, make.deposit(1, 10**9), *jobs))
    orders = {"url": ledger_url, "count": count, "size": size}
    writers = [child(**orders, seed=seed) for seed in range(3)]
    dice = random.Random(7)
    for victim in range(4):
        unlucky = child(**orders, seed=100 + victim)
        assert unlucky.stdout is not None
        for _ in range(dice.randint(1, 6)):
            unlucky.stdout.readline()
        unlucky.kill()
        unlucky.communicate()
    for writer in writers:
        _, err = writer.communicate(timeout=300)
        assert writer.returncode == 0, err
    amounts = [(1 + n % 7, n % 2) for n in range(count)]
    with engine.reading(ledger) as conn:
        assert book.transfer_count(conn) == count + 11
        found = book.balances(conn, [earnings(SELLER), FEE, wallet(BUYER)])
        assert found[FEE] == sum(fee for _, fee in amounts)
        assert found[earnings(SELLER)] == sum(amount - fee for amount, fee in amounts)
        assert found[wallet(BUYER)] == 10**9 - 10 * 100_000
    with ledger.begin() as conn:
        assert seal.seal(conn, 20)
        assert list(audit.audit(conn)) == []
    ledger.dispose()
