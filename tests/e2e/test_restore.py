"""Backup, more jobs, destroy, restore, and all that lives comes back: real programs, real agents.

On SQLite by our own `backup` and `restore`, on PostgreSQL by its own `pg_dump` and `pg_restore`.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from cli.model import EventKind, JobState
from cli.verify import verify_bill
from tests.e2e.test_market4 import cancel, look, submit, until, until_ended, until_running, wish
from tests.rig.parts import find_program, wait_until
from tests.rig.postgres import Postgres
from tests.support.agent_terms import AgentTerms
from tests.support.market import OPERATOR, WholeMarket, program

pytestmark = pytest.mark.slow
LONG = "while true; do echo line; sleep 0.2; done"


@dataclass
class Kept:
    """A market, and how what keeps its database is copied and brought back."""

    market: WholeMarket
    file: Path
    server: Postgres | None = None

    @property
    def data(self) -> Path:
        return self.market.folder / "coordinator"

    def coordinator(self, *arguments: str) -> str:
        argv = [program("usance-coordinator"), *arguments, "--data-dir", str(self.data)]
        argv += ["--database", self.market.database] if self.market.database else []
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=self.file.parent)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def backup(self) -> None:
        if self.server is None:
            assert "0 violations" in self.coordinator("backup", str(self.file))
        else:
            _pg("pg_dump", "--format=custom", f"--file={self.file}", *_where(self.market.database))

    def destroy_and_restore(self, stack: ExitStack) -> str:
        if self.server is None:
            shutil.rmtree(self.data)
            return self.coordinator("restore", str(self.file))
        self.market.database = stack.enter_context(self.server.database())
        _pg("pg_restore", "--exit-on-error", *_where(self.market.database), str(self.file))
        return self.coordinator("restore", "--mark-only")


def _where(url: str | None) -> list[str]:
    parsed = make_url(url or "")
    return [f"--host={parsed.query['host']}", f"--username={parsed.username}", f"--dbname={parsed.database}"]


def _pg(name: str, *arguments: str) -> None:
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    path = find_program(name, how="apt-get install postgresql", folders=newest[::-1])
    done = subprocess.run([str(path), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    server = None if request.param == "sqlite" else request.getfixturevalue("postgres_server")
    with ExitStack() as stack:
        database = stack.enter_context(server.database()) if server else None
        market = WholeMarket(tmp_path / "m", database=database)
        stack.callback(market.stop)
        market.start()
        market.open_account("buyer", "buyer", deposit="1000")
        market.open_account("seller", "seller")
        terms = AgentTerms(simulated_gpus=2, trusted_accounts=("buyer",), labels={"of": "one"})
        market.add_agent("one", "seller", terms)
        yield Kept(market=market, file=tmp_path / "kept", server=server)


def billed(market: WholeMarket, job_id: str) -> int:
    return look(market, job_id).charged_micro


def test_all_comes_back_and_nothing_is_paid_twice(kept: Kept, tmp_path: Path) -> None:
    market, marks = kept.market, tmp_path / "marks"
    marks.mkdir()
    with ExitStack() as stack:
        known = submit(market, wish("one", LONG, run_ms_max=600_000))
        until(market, known, lambda job: job.charged_micro > 0, "it is billed")
        charged_before = billed(market, known)
        kept.backup()
        short = submit(market, wish("one", "echo done"))
        assert until_ended(market, short).state is JobState.SUCCEEDED
        lost = submit(market, wish("one", f"echo $$ > {marks}/lost; exec sleep 600", run_ms_max=600_000))
        until_running(market, lost)
        wait_until((marks / "lost").exists, "it runs indeed")
        until(market, known, lambda job: job.charged_micro > charged_before, "it is billed further")
        market.kill_coordinator()
        said = kept.destroy_and_restore(stack)
        assert "jobs    1 had not ended: 1 had a host" in said
        market.start_coordinator()
        # The GPU of what was lost is free for the coordinator, and not yet for the host.
        script = f"if kill -0 $(cat {marks}/lost); then echo twice; else echo once; fi"
        after = submit(market, wish("one", script))
        assert until_ended(market, after).state is JobState.SUCCEEDED
        assert market.usance("buyer", "logs", after).stdout == "once\n"
        until(market, known, lambda job: job.charged_micro > charged_before, "it goes on")
        cancel(market, known)
        ended = until_ended(market, known)
        assert ended.state is JobState.CANCELLED
        check_bill(market, known)
        audited = kept.coordinator("audit")
        assert "0 violations" in audited
        assert "of 1 attempts that were live: 1 went on, 0 ended nobody knows how, 0 not heard" in audited
        assert "1 that hosts held and nobody knew were told to end" in audited
        assert market.ask(OPERATOR, lambda client: client.run_audit()).violations == ()
        balance = market.ask(OPERATOR, lambda client: client.get_trial_balance())
        assert balance.sum_micro == 0
        assert market.ask("seller", lambda client: client.list_hosts())[0].state == "ONLINE"


def check_bill(market: WholeMarket, job_id: str) -> None:
    """Every record that its host made is there, once, and each was paid once."""
    bill = market.ask("buyer", lambda client: client.get_bill(job_id))
    assert verify_bill(bill).problems == ()
    (attempt,) = bill.attempts
    numbers = [line.record.number for line in attempt.lines]
    assert numbers == list(range(1, len(numbers) + 1))
    assert sum(line.charge_micro for line in attempt.lines) == bill.charged_micro
    events = json.loads(market.usance("buyer", "show", job_id, "--json").stdout)["events"]
    assert [one for one in events if one["kind"] == EventKind.RESTORED]
    output = market.usance("buyer", "logs", job_id).stdout.splitlines()
    assert set(output) == {"line"}
