"""Money from all sides, through the real programs: a job from a file, its bill, its books, the operator."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_terms import AgentTerms
from tests.support.market import OPERATOR, WholeMarket

pytestmark = pytest.mark.slow

JOB_FILE = """\
name = "books"
isolation = "process"
simulated = true
command = ["sh", "-c", "echo done; sleep 2; exit 7"]
budget = 50

[label]
team = "vision"
"""


@pytest.fixture
def market(tmp_path: Path) -> Iterator[WholeMarket]:
    made = WholeMarket(tmp_path / "m")
    try:
        made.start()
        made.open_account("buyer", "buyer", deposit="100")
        made.open_account("seller", "seller")
        made.add_agent("box", "seller", AgentTerms(trusted_accounts=("buyer",)))
        yield made
    finally:
        made.stop()


def refused(market: WholeMarket, person: str, *arguments: str) -> str:
    with pytest.raises(RuntimeError) as caught:
        market.usance(person, *arguments)
    return str(caught.value)


def test_what_a_job_costs_is_the_same_from_every_side(market: WholeMarket, tmp_path: Path) -> None:
    job_file = tmp_path / "job.toml"
    job_file.write_text(JOB_FILE)
    # A cap that leaves less than the budget refuses it; a higher one warns.
    market.usance("buyer", "budget", "--cap", "49")
    assert "exits 113" in refused(market, "buyer", "apply", "-y", str(job_file))
    market.usance("buyer", "budget", "--cap", "60", "--alert", "50%")
    failed = refused(market, "buyer", "apply", "-y", str(job_file))
    assert "exits 7" in failed
    assert "83 % of your spending cap" in failed

    job = market.usance_json("buyer", "show", "books")["job"]
    charged = job["charged_micro"]
    assert charged > 0
    bill = market.usance_json("buyer", "bill", "books", "--verify")
    assert (bill["bill"]["charged_micro"], bill["verdict"]["problems"]) == (charged, [])
    costs = market.usance_json("buyer", "costs", "--by", "label")["costs"]
    assert [(row["key"], row["cost_micro"]) for row in costs["rows"]] == [("team=vision", charged)]
    earned = market.usance_json("seller", "earnings")["earnings"]["total"]
    assert earned["charged_micro"] == charged
    assert earned["earned_micro"] == charged - earned["fee_micro"]
    rows = list(csv.DictReader(io.StringIO(market.usance("buyer", "statement", "--csv").stdout)))
    assert [row["kind"] for row in rows] == ["deposit", "hold", "release"]
    wallet = market.usance_json("buyer", "wallet")["wallet"]["wallet_micro"]
    assert wallet == 100_000_000 - charged

    # The operator gives half of it back and pays the seller out.
    half = f"{charged // 2 / 1e6:.6f}"
    market.usance(OPERATOR, "admin", "refund", job["job_id"], half, "--reason", "sorry")
    bill = market.usance_json("buyer", "bill", "books", "--verify")
    assert (bill["bill"]["refunded_micro"], bill["verdict"]["problems"]) == (charged // 2, [])
    market.usance(
        OPERATOR, "admin", "withdraw", "seller", f"{earned['earned_micro'] / 1e6:.6f}", "--reason", "bank"
    )
    assert market.usance_json("seller", "wallet")["wallet"]["earnings_micro"] == 0
    assert market.usance_json("seller", "statement", "--earnings")["statement"]["closing_micro"] == 0
    health = market.usance_json(OPERATOR, "admin", "health")["health"]
    assert [(each["state"], each["count"]) for each in health["hosts"]] == [("ONLINE", 1)]
    assert [each["account_name"] for each in market.usance_json(OPERATOR, "admin", "hosts")["hosts"]] == [
        "seller"
    ]
    assert len(market.usance_json("seller", "price")["prices"]) == 1
    assert json.loads(market.usance("buyer", "top", "--json").stdout)["jobs"] == []
    market.usance(OPERATOR, "admin", "audit")
    market.usance(OPERATOR, "admin", "trial-balance")

    # A token of one's own works until it is revoked.
    token = market.usance("buyer", "token", "create", "--label", "ci", "--lifetime", "1h").stdout.strip()
    market._tokens["ci"] = token
    (mine,) = [each for each in market.usance_json("ci", "token", "list")["tokens"] if each["current"]]
    assert mine["label"] == "ci"
    market.usance("buyer", "token", "revoke", mine["token_id"])
    assert "exits 111" in refused(market, "ci", "wallet")
