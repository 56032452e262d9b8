"""From one coordinator to the next, with real processes: no usage record is lost, and no job notices."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database", "hosts"),
    [("sqlite", 1_000), pytest.param("postgres", 250, marks=pytest.mark.postgres)],
)
def test_agents_move_and_no_job_notices(
    database: str, hosts: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgres" else ""
    with market(tmp_path, hosts, record_ms=4_000, beat_interval_ms=5_000, database=url) as here:
        first = here.coordinators[0]
        here.start("--take-over")
        assert first.wait(WAIT_S) == 0
        seen = here.finish()
        here.check(seen, hosts)

    # That none has to try again, and how long each is without a stream, is for `benchmarks.wire` to say.
    assert seen["connections"] >= 2 * hosts


@pytest.mark.slow
def test_a_stop_and_a_start_lose_nothing_either(tmp_path: Path) -> None:
    with market(tmp_path, 50, record_ms=500, beat_interval_ms=10_000) as here:
        stop(here.coordinators[0], deadline_s=WAIT_S)
        assert here.coordinators[0].returncode == 0
        here.start()
        here.check(here.finish(), 50)


def kill(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("words", [ASKS, DRAINS, LETS_IN, SITS])
def test_the_next_one_dies_on_its_way(words: str, tmp_path: Path) -> None:
    """At whichever step: the first goes on, or has gone, and then one that is started serves at once."""
    with market(tmp_path, 10, record_ms=300, beat_interval_ms=10_000) as here:
        first, following = here.coordinators[0], here.spawn("--take-over")
        here.until_said(words)
        kill(following)
        if words in {ASKS, DRAINS}:
            here.until_said("goes on serving")
            assert first.poll() is None
            here.start("--take-over")
        else:
            # It had been let in: whether the first one still waits for its word is chance.
            wait_until(
                lambda: first.poll() is not None or here.said("goes on serving") > 0,
                "the first one has decided",
                deadline_s=WAIT_S,
            )
            here.start("--take-over")
        assert first.wait(WAIT_S) == 0
        here.check(here.finish(), 10)


@pytest.mark.slow
@pytest.mark.parametrize("words", [ASKS, DRAINS, LETS_IN, LEAVES])
def test_the_first_one_dies_while_it_hands_over(words: str, tmp_path: Path) -> None:
    with market(tmp_path, 10, record_ms=300, beat_interval_ms=10_000) as here:
        following = here.spawn("--take-over")
        here.until_said(words)
        kill(here.coordinators[0])
        here.until_said("ready market=", times=2)
        here.check(here.finish(), 10)
        assert following.returncode == 0


def test_one_coordinator_at_a_time_keeps_a_market(tmp_path: Path) -> None:
    with market(tmp_path, 1, record_ms=1_000, beat_interval_ms=10_000) as here:
        second = here.spawn()
        assert second.wait(WAIT_S) == 2
        assert here.said("another coordinator keeps this market (process ") == 1
        assert here.said("relieve it with --take-over") == 1


def test_a_next_one_that_is_stopped_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    with market(tmp_path, 1, record_ms=300, beat_interval_ms=10_000) as here:
        following = here.spawn("--take-over")
        here.until_said(DRAINS)
        stop(following)
        assert following.returncode == 0
        here.until_said("goes on serving")
        here.check(here.finish(), 1)
