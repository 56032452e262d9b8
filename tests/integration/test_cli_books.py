"""Tokens, statements, costs and earnings on the command line, against a fake market."""

import csv
import io
import json

import pytest

from cli.exits import Exit
from cli.main import execute
from tests.support.fake_books import NOV_2026_MS
from tests.support.fake_market import TOKEN, FakeMarket


@pytest.fixture
def market(fake_market: FakeMarket) -> FakeMarket:
    return fake_market


def told(capfd, *arguments):
    assert execute([*arguments, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def rows(capfd, *arguments):
    assert execute([*arguments, "--csv"]) == 0
    return list(csv.DictReader(io.StringIO(capfd.readouterr().out)))


def test_a_token_is_made_alone_on_stdout(market, capfd):
    assert execute(["token", "create", "--label", "ci", "--lifetime", "1h"]) == 0
    out, err = capfd.readouterr()
    assert out == "usat_own\n"
    assert "good until" in err
    (request,) = [request for name, request in market.requests if name == "CreateOwnToken"]
    assert (request.label, request.lifetime_ms) == ("ci", 3_600_000)


@pytest.mark.parametrize(("command", "whose"), [(["token", "list"], ""), (["admin", "tokens", "bob"], "bob")])
def test_all_tokens_are_listed_page_by_page(market, capfd, command, whose):
    assert execute([*command, "--all"]) == 0
    out = capfd.readouterr().out
    assert "tok_00000000000000aa" in out
    assert "good, and the one you use" in out
    assert "\\x1b[31mci" in out
    assert [request.account_name for name, request in market.requests if name == "ListTokens"] == [whose] * 2
    assert len(told(capfd, *command)["tokens"]) == 2


@pytest.mark.parametrize(
    ("command", "whose"), [(["token", "revoke"], ""), (["admin", "token-revoke", "bob"], "bob")]
)
def test_a_token_is_revoked_by_its_name(market, capfd, command, whose):
    assert execute([*command, "tok_00000000000000bb"]) == 0
    assert "is refused from now on" in capfd.readouterr().out
    assert market.requests[-1][1].account_name == whose
    assert execute([*command, "tok_none"]) == Exit.NOT_FOUND


def test_logout_forgets_the_profile_and_with_revoke_ends_the_token(market, capfd, monkeypatch, tmp_path):
    profile = tmp_path / "profile.toml"
    assert execute(["logout"]) == Exit.WRONG_USE
    assert "there is no profile 'default'" in capfd.readouterr().err
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    for arguments in (["logout"], ["logout", "--revoke"]):
        assert execute(["login", "--token-file", str(secret)]) == 0
        # What the environment names is another login's.
        monkeypatch.setenv("USANCE_TOKEN", "usat_of_somebody_else")
        assert execute(arguments) == 0
        assert not profile.exists()
        monkeypatch.setenv("USANCE_TOKEN", TOKEN)
    assert "tok_00000000000000aa is refused" in capfd.readouterr().out
    assert market.names().count("RevokeToken") == 1


def test_a_statement_has_all_pages_and_its_ends(market, capfd):
    assert execute(["statement", "--month", "2026-11"]) == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0].split() == ["opening", "0.00", "credits"]
    assert out[-1].split() == ["closing", "3.50", "credits"]
    assert len(out) == 3 + 3
    asked = [request for name, request in market.requests if name == "GetStatement"]
    assert [(r.since_ms, r.until_ms, r.purse) for r in asked] == [
        (NOV_2026_MS, NOV_2026_MS + 30 * 86_400_000, 1)
    ] * 2
    assert execute(["statement", "--all", "--earnings"]) == 0
    assert (market.requests[-1][1].since_ms, market.requests[-1][1].purse) == (0, 2)


def test_a_statement_is_a_sheet(market, capfd):
    first, *_ = found = rows(capfd, "statement")
    assert first == {
        "posted_at": "2026-11-01T00:00:00.001+00:00",
        "transfer_id": "t1",
        "kind": "deposit",
        "credits": "5.00",
        "balance": "5.00",
        "job_id": "",
        "reason": "cash, first",
    }
    assert [row["credits"] for row in found] == ["5.00", "-2.00", "0.50"]


def test_costs_are_added_up(market, capfd):
    by_job = told(capfd, "costs")["costs"]
    assert [row["key"] for row in by_job["rows"]] == ["job_3", "job_2", "job_1"]
    assert by_job["total"] == {
        "key": "total",
        "jobs": 3,
        "billed_ms": 180_000,
        "charged_micro": 3_300_000,
        "back_micro": 600_000,
        "cost_micro": 2_700_000,
        "held_micro": 700_000,
    }
    assert [(row["day"], row["cost"]) for row in rows(capfd, "costs", "--by", "day")] == [
        ("2026-11-02", "1.00"),
        ("2026-11-03", "1.40"),
        ("2026-11-04", "0.30"),
    ]
    assert [(row["month"], row["jobs"]) for row in rows(capfd, "costs", "--by", "month")] == [
        ("2026-11", "3")
    ]
    assert [row["label"] for row in rows(capfd, "costs", "--by", "label")] == [
        "team=speech",
        "-",
        "run=9",
        "team=vision",
    ]
    by_team = rows(capfd, "costs", "--by", "label", "--label", "team")
    assert [(row["team"], row["cost"]) for row in by_team] == [
        ("speech", "1.40"),
        ("-", "1.00"),
        ("vision", "0.30"),
    ]
    assert execute(["costs"]) == 0
    assert capfd.readouterr().out.splitlines()[-1].split() == [
        "total", "3", "3", "min", "3.30", "0.60", "2.70", "0.70",
    ]  # fmt: skip


def test_earnings_are_added_up(market, capfd):
    by_host = told(capfd, "earnings")["earnings"]
    assert by_host["total"] == {
        "key": "total",
        "attempts": 2,
        "failed": 1,
        "billed_ms": 120_000,
        "charged_micro": 2_000_000,
        "fee_micro": 100_000,
        "returned_micro": 950_000,
        "earned_micro": 950_000,
    }
    for by, keys in (
        ("attempt", ["att_2", "att_1"]),
        ("gpu", ["RTX 4090"]),
        ("day", ["2026-11-02", "2026-11-03"]),
        ("month", ["2026-11"]),
    ):
        assert [row[by] for row in rows(capfd, "earnings", "--by", by)] == keys
    assert execute(["earnings"]) == 0
    assert "0.95" in capfd.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["statement", "--month", "november"], "write it like 2026-11"),
        (["statement", "--month", "2026-13"], "write it like 2026-11"),
        (["costs", "--all", "--month", "last"], "can't both be"),
        (["earnings", "--csv", "--json"], "choose one"),
        (["costs", "--label", "team"], "goes with --by label"),
        (["costs", "--by", "moon"], "'moon' is not one of"),
        (["token", "create", "--lifetime", "1 h"], "write it like 2h"),
    ],
)
def test_a_wrong_use_is_one_sentence(market, capfd, arguments, sentence):
    assert execute(arguments) == Exit.WRONG_USE
    out, err = capfd.readouterr()
    assert sentence in err
    assert out == ""
    assert market.requests == []
