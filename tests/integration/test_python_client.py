"""The Python client as its page and the examples show it, against a fake market."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli.books import Period, Purse
from cli.client.books import Books, Tokens
from cli.client.calls import Patience
from cli.client.market import Market
from cli.client.sync import SyncBooks, SyncMarket, SyncTokens
from cli.errors import Refused, Unreachable, WrongUse
from cli.library import connect_sync, job
from cli.model import Isolation, JobState, LogEnd, OfferFilter
from cli.wishes import GpuRequest, Network, OnHostLoss
from tests.support.fake_job import Script
from tests.support.fake_market import FakeMarket

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")
FIRST, LOOP = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SWEEP, FUNCTION = (
    (ROOT / f"examples/{name}.py").read_text(encoding="utf-8") for name in ("sweep", "function")
)


@pytest.fixture
def market(fake_market: FakeMarket) -> FakeMarket:
    return fake_market


def run(code: str, tmp_path: Path) -> dict[str, object]:
    """As a file, so that its functions have a source."""
    path = tmp_path / "example.py"
    path.write_text(code)
    found: dict[str, object] = {"__name__": "__main__"}
    exec(compile(code, str(path), "exec"), found)
    return found


def test_the_sweep_stays_within_its_budget(market, capfd, tmp_path):
    market.script = Script(output=[("STDERR", b"noise"), ("STDOUT", b"loss 0.25\n")])
    run(SWEEP, tmp_path)
    assert capfd.readouterr().out == "best rate 0.001 of 20, 30.000000 credits spent\n"
    assert len(market.jobs) == 20
    assert sum(made.spec.budget_micro for made in market.jobs) == 5_000_000
    assert {made.spec.labels["sweep"] for made in market.jobs} == {"rate"}


def test_a_function_goes_and_its_result_comes_back(market, capfd, tmp_path):
    market.script = Script(output=[("STDOUT", b"21.0\n")])
    run(FUNCTION, tmp_path)
    assert capfd.readouterr().out == "21.0\n"
    # What goes there is a whole program, which gives what the function gives.
    interpreter, *arguments = market.jobs[0].spec.command
    assert interpreter == "python3"
    done = subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    assert done.stdout == b"21.0\n"


def test_a_first_job_is_waited_for(market, capfd, tmp_path):
    market.script = Script(output=[("STDOUT", b"hello")])
    run(FIRST, tmp_path)
    assert capfd.readouterr().out == "SUCCEEDED 0 hello\n"


def test_output_is_followed_with_an_event_loop(market, capfdbinary, tmp_path):
    market.script = Script(output=[("STDOUT", b"one\n"), ("STDOUT", b"two\n")])
    run(LOOP, tmp_path)
    assert capfdbinary.readouterr().out == b"one\ntwo\n"


def test_all_that_a_buyer_does_works_without_a_loop_also_within_one(market):
    market.script = Script(ends=False, output=[("STDOUT", b"x" * 9)])

    def play() -> None:
        with connect_sync() as sync:
            assert sync.get_self().name == "ann"
            assert sync.get_wallet().wallet_micro == 5_250_000
            wanted = OfferFilter(
                gpus=GpuRequest(), isolation_min=Isolation.UNSPECIFIED, gpu_hour_price_micro_max=0
            )
            assert len(sync.list_offers(wanted)) == 1
            spec = job(["a"], image="i", budget="5", vram="1GB", max_price="1", max_time="1h", env={"A": "b"})
            assert sync.quote_job(spec).offer is not None
            made = sync.submit_job(spec)
            assert sync.submit_job(spec).job_id != made.job_id
            assert len(list(sync.list_jobs())) == len(market.jobs)
            assert next(iter(sync.watch_job(made.job_id))).text == "taken in"
            assert isinstance(list(sync.read_logs(made.job_id, follow=False))[-1], LogEnd)
            assert isinstance(list(sync.read_logs(made.job_id, follow=False, tail_bytes=1))[-1], LogEnd)
            assert len(next(iter(sync.watch_offers(wanted)))) == 1
            with pytest.raises(TimeoutError):
                sync.wait_job(made.job_id, limit_ms=1)
            assert sync.extend_job(made.job_id, budget_micro_more=1).spec.budget_micro == 5_000_001
            sync.cancel_job(made.job_id)
            assert sync.wait_job(made.job_id).state is JobState.CANCELLED
            assert sync.get_bill(made.job_id).job_id == made.job_id

    play()

    async def in_a_loop() -> None:
        play()

    asyncio.run(in_a_loop())


def test_tokens_and_books_work_without_a_loop(market):
    with connect_sync() as sync:
        assert sync.tokens.create("ci").token
        assert [token.token_id for token in sync.tokens.list_all()] == [
            "tok_00000000000000aa",
            "tok_00000000000000bb",
        ]
        assert sync.tokens.revoke("tok_00000000000000bb").token_id == "tok_00000000000000bb"
        assert sync.books.statement(Purse.WALLET, Period()).movements
        assert list(sync.books.costs(Period()))
        assert list(sync.books.earnings(Period()))
        assert sync.books.set_cap(50_000_000).month_micro == 50_000_000
        assert sync.books.get_cap().month_micro == 50_000_000
        assert sync.books.list_prices()


@pytest.mark.parametrize(("kind", "same"), [(SyncMarket, Market), (SyncBooks, Books), (SyncTokens, Tokens)])
def test_without_a_loop_nothing_of_a_buyers_is_missing(kind, same):
    others = {"create_enrolment_token", "create_account", "list_accounts", "create_token", "deposit"}
    others |= {"get_trial_balance", "run_audit"}

    def methods(of: type) -> set[str]:
        """Hosts are a seller's and the operator's."""
        return {
            name for name in vars(of) if not name.startswith("_") and not name.endswith(("_host", "_hosts"))
        }

    assert methods(kind) == methods(same) - others


def test_a_job_names_what_it_may_reach():
    made = job(["a"], image="i", budget="1", reach=["Example.org:443"])
    assert (made.network, made.network_destinations) == (Network.ALLOW_LIST, ("example.org:443",))
    for network, reach in (
        (Network.INTERNET, ["example.org"]),
        (Network.ALLOW_LIST, []),
        (Network.NONE, ["a b"]),
    ):
        with pytest.raises(WrongUse):
            job(["a"], image="i", budget="1", network=network, reach=reach)


def test_refusals_and_silence_are_told_apart(market):
    with connect_sync(patience=Patience(call_ms=0)) as sync:
        with pytest.raises(Refused) as refused:
            sync.submit_job(job(["a"], image="i", budget="5", name="too-dear"))
        assert refused.value.code == "INSUFFICIENT_FUNDS"
        market.faults = {"GetWallet": 1}
        with pytest.raises(Unreachable):
            sync.get_wallet()


def test_a_request_id_that_was_kept_makes_one_job(market):
    kept = "00000000-0000-4000-8000-000000000001"
    with connect_sync() as sync:
        assert len({sync.submit_job(job(["a"], image="i", budget="5"), kept).job_id for _ in range(3)}) == 1


def test_a_job_is_said_as_on_the_command_line():
    made = job(["/bin/x"], budget="0.50", gpu="a100:2", retries=1, on_host_loss=OnHostLoss.REPLACE)
    assert (made.name, made.isolation_min, made.gpus.count, made.budget_micro) == (
        "x",
        Isolation.PROCESS,
        2,
        500_000,
    )
    for budget, vram, gpu, command in (
        ("much", "", "any", ["a"]),
        ("1", "big", "any", ["a"]),
        ("1", "", ":2", ["a"]),
        ("1", "", "any", []),
    ):
        with pytest.raises(WrongUse):
            job(command, image="i", budget=budget, vram=vram, gpu=gpu)
