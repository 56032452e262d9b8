"""A paid job, end to end through the real programs: on each database, each executor, and through crashes."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.client.market import Market
from cli.exits import Exit
from cli.model import Bill, Job
from cli.verify import MS_PER_HOUR, verify_bill
from tests.rig.images import tiny_image
from tests.rig.parts import wait_until
from tests.support.agent_terms import AgentTerms
from tests.support.market import OPERATOR, WholeMarket, program
from tests.support.running_usance import Running

pytestmark = pytest.mark.slow

DEPOSIT_MICRO = 100_000_000
# Starting a program and looking at the clock in a shell take time, which is not the job's own.
SHELL_MS = 1_500
STEPS, EXIT_CODE = 5, 3
BIG_BYTES = 50_000_000
# It says when it ran by the clock that suspends and jumps don't move, on stderr; its work is on stdout.
SCRIPT = f"""
read now rest < /proc/uptime; echo "from $now" >&2
for step in $(seq {STEPS}); do echo "step $step of {STEPS}"; sleep 1; done
read now rest < /proc/uptime; echo "to $now" >&2
exit {EXIT_CODE}
"""
EXPECTED = "".join(f"step {step} of {STEPS}\n" for step in range(1, STEPS + 1)).encode()


@contextmanager
def running_market(
    folder: Path, *, database: str | None = None, terms: AgentTerms | None = None
) -> Iterator[WholeMarket]:
    """A buyer with credits, and a seller with one machine that trusts the buyer."""
    market = WholeMarket(folder, database=database)
    try:
        market.start()
        market.open_account("buyer", "buyer", deposit="100")
        market.open_account("seller", "seller")
        market.add_agent("one", "seller", terms or AgentTerms(trusted_accounts=("buyer",)))
        yield market
    except BaseException:
        print(market.log("coordinator")[-5_000:], market.log("agent-one")[-5_000:])
        raise
    finally:
        market.stop()


def start_run(market: WholeMarket, *how: str) -> Running:
    return Running(
        market, "buyer", "run", "-y", "--budget", "50", "--grace", "1s", *how, "--", "sh", "-c", SCRIPT
    )


def check_outcome(market: WholeMarket, run: Running) -> None:
    """It ends well; output, bill and books are right to the byte and the micro-credit."""
    assert run.end() == EXIT_CODE, run.err
    assert run.out == EXPECTED
    job = market.ask("buyer", _last_job)
    bill = market.ask("buyer", lambda client: client.get_bill(job.job_id))
    check_bill(job, bill, run_ms=_run_ms(run.err))
    check_books(market, bill)


def check_bill(job: Job, bill: Bill, *, run_ms: int) -> None:
    (attempt,) = bill.attempts
    billed_ms = attempt.lines[-1].billed_through_ms
    assert bill.final
    assert verify_bill(bill).problems == ()
    assert bill.charged_micro == job.charged_micro == attempt.hour_price_micro * billed_ms // MS_PER_HOUR
    assert bill.released_micro == bill.held_micro - bill.charged_micro
    # Not one millisecond is paid that the job did not run, and here nothing was lost either.
    assert billed_ms <= attempt.lines[-1].record.end_ms
    assert run_ms - SHELL_MS < billed_ms < run_ms + SHELL_MS
    assert job.attempts[-1].billed_ms == billed_ms


def check_books(market: WholeMarket, bill: Bill) -> None:
    buyer, seller = (market.ask(person, lambda client: client.get_wallet()) for person in ("buyer", "seller"))
    fee_micro = sum(line.fee_micro for attempt in bill.attempts for line in attempt.lines)
    assert buyer.held_micro == 0
    assert buyer.wallet_micro == DEPOSIT_MICRO - bill.charged_micro
    assert buyer.wallet_micro + seller.earnings_micro + fee_micro == DEPOSIT_MICRO
    balance = market.ask(OPERATOR, lambda client: client.get_trial_balance())
    assert balance.sum_micro == sum(line.balance_micro for line in balance.lines) == 0
    assert market.ask(OPERATOR, lambda client: client.run_audit()).violations == ()


async def _last_job(client: Market) -> Job:
    async for job in client.list_jobs(page_size=1):
        return job
    raise AssertionError("there is no job")


def _run_ms(err: str) -> int:
    """As the job itself saw it, from its own two looks at the clock."""
    told = dict(re.findall(r"^(from|to) ([\d.]+)$", err, re.MULTILINE))
    return round(1_000 * (float(told["to"]) - float(told["from"])))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def test_a_job_is_run_and_paid(tmp_path, database):
    with running_market(tmp_path / "m", database=database) as market:
        run = start_run(market, "--isolation", "process")
        check_outcome(market, run)


@pytest.mark.docker
def test_a_job_is_run_in_a_container_and_paid(tmp_path, docker_engine, docker_client):
    terms = AgentTerms(executor="docker", docker_host=docker_engine.base_url)
    with running_market(tmp_path / "m", terms=terms) as market:
        run = start_run(market, "--image", tiny_image(docker_client))
        check_outcome(market, run)
        wait_until(lambda: not docker_client.containers.list(all=True), "the container is gone")


def _kill_agent(market: WholeMarket) -> None:
    """Down until the coordinator has noticed."""
    market.kill_agent("one")

    async def noticed(seller: Market) -> bool:
        return all(host.state != "ONLINE" for host in await seller.list_hosts())

    market.until("seller", noticed, "the coordinator misses the host")
    market.start_agent("one")


def _kill_coordinator(market: WholeMarket) -> None:
    market.kill_coordinator()
    market.start_coordinator()


def _kill_both(market: WholeMarket) -> None:
    market.kill_coordinator()
    market.kill_agent("one")
    market.start_coordinator()
    market.start_agent("one")


@pytest.mark.parametrize("crash", [_kill_agent, _kill_both])
def test_a_crash_in_the_middle_changes_neither_output_nor_bill(
    tmp_path, crash: Callable[[WholeMarket], None]
):
    with running_market(tmp_path / "m") as market:
        run = start_run(market, "--isolation", "process")
        try:
            run.until_line(f"step 2 of {STEPS}")
            crash(market)
            check_outcome(market, run)
        finally:
            run.kill()


def test_much_output_comes_whole_through_crashes(tmp_path):
    """The agent and then the coordinator are killed while it flows."""
    written = tmp_path / "written"
    script = f"head -c {BIG_BYTES} /dev/urandom | tee {written}"
    with running_market(tmp_path / "m") as market:
        command = ["run", "-y", "--budget", "50", "--isolation", "process", "--", "sh", "-c", script]
        run = Running(market, "buyer", *command)
        run.until_size(BIG_BYTES // 8)
        market.kill_agent("one")
        market.start_agent("one")
        run.until_size(BIG_BYTES // 4)
        _kill_coordinator(market)
        assert run.end() == 0, run.err
        assert run.out == written.read_bytes()
        job = market.ask("buyer", _last_job)
        check_books(market, market.ask("buyer", lambda client: client.get_bill(job.job_id)))


@pytest.mark.docker
def test_a_crash_of_the_agent_does_not_touch_its_container(tmp_path, docker_engine, docker_client):
    terms = AgentTerms(executor="docker", docker_host=docker_engine.base_url)
    with running_market(tmp_path / "m", terms=terms) as market:
        run = start_run(market, "--image", tiny_image(docker_client))
        try:
            run.until_line(f"step 2 of {STEPS}")
            _kill_agent(market)
            check_outcome(market, run)
        finally:
            run.kill()


def test_a_buyer_who_is_not_trusted_or_demands_isolation_gets_no_process(tmp_path):
    with running_market(tmp_path / "m", terms=AgentTerms()) as market:
        quote = ["quote", "--budget", "1", "--isolation", "process", "--", "true"]
        refused = subprocess.run(
            [program("usance"), *quote],
            env=market.environment("buyer"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert refused.returncode == Exit.NO_MATCH, refused.stdout + refused.stderr
        assert "none fits now" in refused.stdout


def test_stopping_a_market_in_the_middle_of_a_job_leaves_nothing(tmp_path):
    with running_market(tmp_path / "m") as market:
        run = start_run(market, "--isolation", "process")
        run.until_line(f"step 1 of {STEPS}")
        run.kill()
        assert list(market.processes())
    assert not list(market.processes())
    assert not (tmp_path / "m").exists()
