"""Budget, price, and the operator's payouts, hosts and health on the command line, against a fake market."""

import json

import pytest

from cli.exits import Exit
from cli.main import execute
from tests.support.fake_market import FakeMarket


@pytest.fixture
def market(fake_market: FakeMarket) -> FakeMarket:
    return fake_market


def test_a_budget_is_shown_set_and_taken_away(market, capfd):
    assert execute(["budget"]) == 0
    assert "none; set one with" in capfd.readouterr().out
    assert execute(["budget", "--cap", "50"]) == 0
    out = capfd.readouterr().out
    assert "50.00 credits for the jobs of one month" in out
    assert "82 %" in out
    assert "9.00 credits until the month ends" in out
    assert "from 80 % on (passed)" in out
    # The alert alone keeps the cap.
    assert execute(["budget", "--alert", "90%"]) == 0
    assert "from 90 % on\n" in capfd.readouterr().out
    assert market.requests[-1][1].month_micro == 50_000_000
    assert execute(["budget", "--no-cap", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["cap"]["month_micro"] == 0


def test_what_the_market_has_to_say_at_submit_is_said(market, capfd):
    market.notices.append("90 % of your spending cap is used")
    for arguments in (["--detach"], []):
        assert execute(["run", "-y", "--image", "i", "--budget", "5", *arguments, "--", "a"]) == 0
        assert "usance: 90 % of your spending cap is used\n" in capfd.readouterr().err


def test_prices_are_shown_of_all_models_or_of_some(market, capfd):
    assert execute(["price"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 3
    assert execute(["price", "4090"]) == 0
    out = capfd.readouterr().out.splitlines()
    assert out[1].split() == ["RTX", "4090", "2", "3", "of", "5", "0.40", "0.50", "0.90", "-"]
    assert execute(["price", "nothing"]) == 0
    assert capfd.readouterr().out == "nothing is offered now\n"


def test_what_was_paid_out_is_taken_from_the_purse_named(market, capfd):
    for flags, purse, where in (([], 2, "earnings"), (["--wallet"], 1, "wallet")):
        assert execute(["admin", "withdraw", "ann", "1.5", "--reason", "bank", *flags]) == 0
        assert capfd.readouterr().out == f"ann has 0.25 credits left in its {where}\n"
        request = market.requests[-1][1]
        assert (request.purse, request.amount_micro, request.reason) == (purse, 1_500_000, "bank")


def test_a_refund_tells_what_is_left_of_the_cost(market, capfd):
    assert execute(["admin", "refund", "job_1", "0.5", "--reason", "we slept"]) == 0
    assert capfd.readouterr().out == "job_1: 1.50 credits given back in all, 0.25 credits its cost now\n"
    request = market.requests[-1][1]
    assert (request.job_id, request.amount_micro, request.reason) == ("job_1", 500_000, "we slept")


def test_all_hosts_are_listed_page_by_page(market, capfd):
    assert execute(["admin", "hosts", "--state", "online"]) == 0
    out = capfd.readouterr().out
    assert len(out.splitlines()) == 3
    assert "sam" in out
    assert "\x1b" not in out
    assert [request.state for name, request in market.requests if name == "ListAllHosts"] == [1, 1]


def test_gpus_that_two_hosts_claim_are_shown_and_given_to_the_other(market, capfd):
    assert execute(["admin", "gpu-claims"]) == 0
    out = capfd.readouterr().out
    assert out.splitlines()[1].split()[1:4] == ["host_1", "host_2", "no"]
    assert "\x1b" not in out
    assert execute(["admin", "gpu-release", "GPU-1", "--reason", "it was sold"]) == 0
    assert capfd.readouterr().out == "it belongs to host_2\n"
    assert market.requests[-1][1].reason == "it was sold"
    assert execute(["admin", "gpu-release", "GPU-2", "--reason", "it was sold"]) == 0
    assert capfd.readouterr().out == "it belongs to the next host that names it\n"


def test_health_tells_and_fails_when_the_books_are_wrong(market, capfd):
    assert execute(["admin", "health"]) == 0
    out = capfd.readouterr().out
    for part in ("3 online", "2 queued", "9 transfers, sealed up to the 7th", "on sqlite"):
        assert part in out
    market.sum_micro = 1
    assert execute(["admin", "health"]) == Exit.BROKEN


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["budget", "--no-cap", "--cap", "5"], "--no-cap takes the cap away"),
        (["budget", "--alert", "120%"], "write 1% to 100%"),
        (["budget", "--alert", "90"], "there is no cap to warn of"),
        (["admin", "withdraw", "ann", "5"], "Missing option '--reason'"),
        (["admin", "hosts", "--state", "fine"], "'fine' is not one of"),
    ],
)
def test_a_wrong_use_is_one_sentence(market, capfd, arguments, sentence):
    assert execute(arguments) == Exit.WRONG_USE
    out, err = capfd.readouterr()
    assert sentence in err
    assert out == ""
