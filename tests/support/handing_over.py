"""Coordinators that follow one another, and a crowd of agents: real processes."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from benchmarks.ground import Ground
from coordinator.domain.event import EventKind
from coordinator.domain.host import HostState
from coordinator.domain.states import AttemptState
from coordinator.services import audit
from coordinator.store.database import Database
from coordinator.store.tables import attempt, bill_line, event
from ledger.engine import make_engine
from tests.rig.parts import stop, wait_until

WAIT_S = 60.0
ASKS, DRAINS, LETS_IN = "asks process", "agents are asked to move", "lets people in"
LEAVES, SITS = "commits what was begun", "has taken the seat"


@dataclass
class Market:
    """A market with running jobs, its coordinators, and a crowd of agents."""

    ground: Ground
    crowd: "subprocess.Popen[str]"
    coordinators: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def start(self, *flags: str) -> "subprocess.Popen[bytes]":
        self.ground.start(*flags)
        assert self.ground.process is not None
        self.coordinators.append(self.ground.process)
        return self.ground.process

    def spawn(self, *flags: str) -> "subprocess.Popen[bytes]":
        process = self.ground.spawn(*flags)
        self.coordinators.append(process)
        return process

    def said(self, words: str) -> int:
        return self.ground.log.read_text().count(words)

    def until_said(self, words: str, times: int = 1) -> None:
        wait_until(lambda: self.said(words) >= times, words, deadline_s=WAIT_S)

    def connected(self) -> None:
        assert self.crowd.stdout is not None
        assert self.crowd.stdout.readline() == "connected\n"

    def finish(self) -> dict[str, Any]:
        """No more records; what the agents saw, once all that they made are acknowledged."""
        assert self.crowd.stdin is not None
        assert self.crowd.stdout is not None
        self.crowd.stdin.write("finish\n")
        self.crowd.stdin.flush()
        seen: dict[str, Any] = json.loads(self.crowd.stdout.readline())
        return seen

    def check(self, seen: dict[str, Any], hosts: int) -> None:
        """Every record is a line of a bill, once; and all that befell the jobs is that they were billed."""
        for process in self.coordinators:
            stop(process)
        assert seen["unwanted"] == []
        assert seen["acknowledged"] == seen["made"] > 0
        engine = make_engine(self.ground.settings.database_url)
        with closing(Database(engine, lambda _: None)) as database, engine.connect() as connection:
            lines = select(bill_line.c.attempt_id, func.count(), func.max(bill_line.c.number))
            rows = connection.execute(lines.group_by(bill_line.c.attempt_id)).all()
            assert all(count == last for _, count, last in rows)
            assert sum(count for _, count, _ in rows) == seen["made"]
            states = connection.execute(select(attempt.c.state, func.count()).group_by(attempt.c.state)).all()
            assert [tuple(row) for row in states] == [(str(AttemptState.RUNNING), hosts)]
            kinds = select(event.c.kind).where(event.c.job_id.is_not(None)).distinct()
            assert list(connection.execute(kinds).scalars()) == [str(EventKind.BILLED)]
            # Where the machine is busy some may have been missed for a while, but none was given up.
            of_hosts = select(event.c.text).where(event.c.kind == str(EventKind.HOST_STATE))
            changes = connection.execute(of_hosts).scalars().all()
            assert not [change for change in changes if f" to {HostState.LOST}:" in change]
            assert sum(f" to {HostState.ONLINE}:" in change for change in changes) >= hosts
            violations, _ = database.read(audit.run).result()
            assert violations == []


@contextmanager
def market(
    folder: Path, hosts: int, *, record_ms: int, beat_interval_ms: int, database: str = ""
) -> Iterator[Market]:
    ground = Ground(folder=folder, database=database, beat_interval_ms=beat_interval_ms)
    ground.prepare(hosts, 1)
    argv = [
        sys.executable,
        "-m",
        "tests.support.crowd",
        str(folder / "fleet.json"),
        ground.hosts,
        str(record_ms),
    ]
    made: Market | None = None
    with (folder / "crowd.log").open("wb") as log:
        crowd = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *argv],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        try:
            made = Market(ground, crowd)
            made.start()
            made.connected()
            yield made
        finally:
            crowd.kill()
            crowd.communicate()
            for process in made.coordinators if made else ():
                process.kill()
                process.wait()


def kill(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
