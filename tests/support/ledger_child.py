"""A process that works on a ledger and may be killed at any moment.

It writes a line to its output for every batch that is committed, after the commit.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Sequence
from typing import Any

from ledger import book
from ledger.engine import make_engine
from ledger.entries import Transfer
from tests.support import ledger as make


def scenario() -> list[list[Transfer]]:
    """Batches that together use every statement that posting knows."""
    return [
        [make.deposit(1, 10_000), make.hold(2, 5_000), make.hold(3, 99_999)],
        [make.capture(10 + n, 10, 1, 1 + n) for n in range(12)],
        [make.refund(40, 10, 9, 1), make.hold(41, 50, job="job_2", linked=True), make.hold(42, 99_999)],
        [make.release(50, 4_880), make.capture(51, 1)],
    ]


def captures(seed: int, count: int, size: int) -> list[list[Transfer]]:
    """The same captures for every process, each in an order and in overlapping batches of its own."""
    every = [make.capture(1_000 + n, 1 + n % 7, n % 2, job=f"job_{n % 10}") for n in range(count)]
    order = random.Random(seed)
    order.shuffle(every)
    batches = [every[at : at + size] for at in range(0, count, size)]
    return [batch + order.sample(every, 3) for batch in batches]


def _die_at(countdown: int, conn: Any) -> None:
    """SIGKILL ourselves before the n-th statement that reaches the database, whoever sends it."""
    left = [countdown]
    last: list[object] = [None]

    def step(statement: str | None = None) -> None:
        # SQLite tells of a statement again for each that its triggers run.
        if statement is not None and statement == last[0]:
            return
        last[0] = statement
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    raw = conn.connection.driver_connection
    if conn.dialect.name == "sqlite":
        raw.set_trace_callback(step)
        return
    import psycopg

    for name in ("execute", "executemany", "copy"):
        original = getattr(psycopg.Cursor, name)

        def counted(self: Any, *args: Any, _original: Any = original, **options: Any) -> Any:
            step()
            return _original(self, *args, **options)

        setattr(psycopg.Cursor, name, counted)
    commit = psycopg.Connection.commit

    def counted_commit(self: Any) -> None:
        step()
        commit(self)
        step()

    psycopg.Connection.commit = counted_commit  # type: ignore[method-assign]


def run_scenario(url: str, die_at: int, told: str) -> None:
    """In a process that was forked: `told` is the file that takes its output."""
    os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT), 1)
    run(url, scenario(), die_at)


def run(url: str, batches: Sequence[Sequence[Transfer]], die_at: int | None) -> None:
    engine = make_engine(url)
    if die_at is not None:
        with engine.connect() as conn:
            _die_at(die_at, conn)
    for number, batch in enumerate(batches):
        with engine.begin() as conn:
            outcomes = book.post(conn, batch, 10)
        assert all(outcome.status.value != "exists_with_different_content" for outcome in outcomes)
        os.write(1, f"{number}\n".encode())


def main() -> None:
    orders = json.loads(sys.argv[1])
    run(orders["url"], captures(orders["seed"], orders["count"], orders["size"]), None)


if __name__ == "__main__":
    main()
