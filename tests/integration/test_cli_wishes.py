"""What buyers and sellers ask of hosts and of waiting jobs, at the command line against a fake market."""

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from cli.exits import Exit
from cli.main import execute
from tests.support.fake_job import HOST_ID, Script
from tests.support.fake_market import FakeMarket
from usance.v1 import market_pb2, types_pb2

RUN = ["run", "-y", "--image", "img", "--budget", "5"]
DETACHED = [*RUN, "--detach", "--", "a"]
ASKED = [
    *("--region", "eu-1", "--region", "eu-2", "--driver", "550.54", "--cuda", "12.4", "--cc", "8.0"),
    *("--reliability", "99.5%", "--host-label", "rack=b7", "--host-label", "tier="),
]
WANTED = types_pb2.HostRequest(
    driver_version_min="550.54",
    cuda_version_min="12.4",
    regions=["eu-1", "eu-2"],
    reliability_ppm_min=995_000,
    labels={"rack": "b7", "tier": ""},
)


@pytest.fixture
def market(fake_market: FakeMarket) -> FakeMarket:
    return fake_market


def sent(market: FakeMarket, name: str) -> Any:
    """The last request of that name."""
    return [request for called, request in market.requests if called == name][-1]


def test_a_run_sends_every_wish(market, capfd):
    wishes = ["--policy", "most-reliable", "--priority", "90", "--on-host-loss", "replace", "--retries", "1"]
    wishes += ["--memory", "32GiB", "--cpu", "1.5"]
    own = ["--label", "team=vision", "--note", "the third try"]
    assert execute([*RUN, *ASKED, *wishes, *own, "--", "a"]) == 0
    spec = market.jobs[0].spec
    assert spec.host == WANTED
    assert spec.gpus.compute_capability_min == "8.0"
    assert spec.policy == types_pb2.POLICY_MOST_RELIABLE
    assert spec.priority == 90
    assert (spec.memory_bytes, spec.cpu_milli) == (32 << 30, 1_500)
    assert spec.on_host_loss == types_pb2.ON_HOST_LOSS_REPLACE
    assert (dict(spec.labels), spec.note) == ({"team": "vision"}, "the third try")


def test_what_was_wished_comes_back_with_the_job(market, capfd):
    assert execute([*RUN, *ASKED, "--priority", "90", "--label", "team=vision", "--", "a"]) == 0
    capfd.readouterr()
    assert execute(["show", "@last", "--json"]) == 0
    spec = json.loads(capfd.readouterr().out)["job"]["spec"]
    assert (spec["policy"], spec["priority"], spec["on_host_loss"]) == ("BALANCED", 90, "WAIT")
    assert spec["host"]["regions"] == ["eu-1", "eu-2"]
    assert spec["host"]["labels"] == [["rack", "b7"], ["tier", ""]]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["offers", "--driver", "new"], "is no version"),
        (["offers", "--reliability", "high"], "write it like 99%"),
        (["offers", "--host-label", "Rack=1"], "is no label"),
        (["offers", "--sort", "colour"], "is not one of"),
        ([*RUN, "--priority", "0", "--", "a"], "1<=x<=100"),
        ([*RUN, "--policy", "best", "--", "a"], "is not one of"),
        ([*RUN, "--on-host-loss", "weep", "--", "a"], "is not one of"),
        ([*RUN, "--label", "team", "--", "a"], "is no label"),
        ([*RUN, "--note", "\udcff", "--", "a"], "is not UTF-8"),
        ([*RUN, "--label", "team=\udcff", "--", "a"], "is not UTF-8"),
        ([*RUN, "--host-label", "rack=\udcff", "--", "a"], "is not UTF-8"),
        (["offers", "--region", "\udcff"], "is not UTF-8"),
        (["offers", "--gpu", "\udcff"], "is not UTF-8"),
        (["admin", "quarantine", HOST_ID, "--reason", "\udcff"], "is not UTF-8"),
        (["extend", "@last"], "nothing to extend by"),
        (["admin", "quarantine", HOST_ID], "Missing option '--reason'"),
    ],
)
def test_a_wrong_wish_is_named(market, capfd, arguments, sentence):
    assert execute(arguments) == Exit.WRONG_USE
    err = capfd.readouterr().err
    assert sentence in err
    assert "Traceback" not in err
    assert market.requests == []


def test_offers_are_asked_for_by_all_that_matters(market, capfd):
    market.offers[0].reliability_ppm = 995_000
    assert execute(["offers", "--gpu", "4090:2", *ASKED, "--sort", "reliability"]) == 0
    request = sent(market, "ListOffers")
    assert request.host == WANTED
    assert request.gpus.compute_capability_min == "8.0"
    assert request.order == market_pb2.OFFER_ORDER_RELIABILITY
    assert "99.5 %" in capfd.readouterr().out


def test_offers_are_shown_again_when_they_change(market):
    watching = subprocess.Popen(
        [sys.executable, "-m", "cli", "offers", "--watch", "--json", "--gpu", "4090"],
        stdout=subprocess.PIPE,
        env={**os.environ, **market.environment},
    )
    try:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert [offer["gpu_count_free"] for offer in first["offers"]] == [2]
        taken = market_pb2.Offer()
        taken.CopyFrom(market.offers[0])
        taken.gpu_count_free = 1
        with market.changed:
            market.offers[0] = taken
            market.changed.notify_all()
        assert json.loads(watching.stdout.readline())["offers"][0]["gpu_count_free"] == 1
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == Exit.INTERRUPTED
    finally:
        watching.kill()
        watching.communicate()
    assert sent(market, "WatchOffers").filter.gpus.model == "4090"


def test_a_waiting_job_says_why_its_place_and_what_would_help(market, capfd):
    market.script = Script(waits=True)
    assert execute(DETACHED) == 0
    capfd.readouterr()
    for command in ("why", "show"):
        assert execute([command, "@last"]) == 0
        out = capfd.readouterr().out
        assert "place 3" in out
        assert "2 hosts left out: GPU memory (at most 24 GiB)" in out
        assert "what would help: ask for 24 GiB of GPU memory" in out
    assert execute(["why", "@last", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)["job"]
    assert (told["queue_place"], told["cheapest_change"]) == (3, "ask for 24 GiB of GPU memory")


def test_a_quote_says_what_would_help(market, capfd):
    market.offers.clear()
    assert execute(["quote", "--image", "i", "--budget", "5", "--", "a"]) == Exit.NO_MATCH
    assert "what would help: pay 0.42 for a GPU-hour" in capfd.readouterr().out


def test_an_ended_job_says_why_and_who_pays(market, capfd):
    market.script = Script(state="FAILED", cause="HOST", end_reason="HOST_LOST", detail="the host was lost")
    assert execute([*RUN, "--", "a"]) == Exit.HOST_LOST
    assert execute(["why", "@last"]) == 0
    out = capfd.readouterr().out
    assert "the host was lost" in out
    assert "host: the time that the host's fault made worthless was given back" in out


def test_a_job_is_extended(market, capfd):
    market.script = Script(ends=False)
    assert execute([*RUN, "--max-time", "1h", "--detach", "--", "a"]) == 0
    assert execute(["extend", "@last", "--budget", "2.5", "--time", "30m"]) == 0
    assert "at most 7.50 credits and 1 h 30 min now" in capfd.readouterr().out
    request = sent(market, "ExtendJob")
    assert (request.budget_micro_more, request.run_ms_more) == (2_500_000, 1_800_000)
    assert execute(["cancel", "@last"]) == 0
    assert execute(["extend", "@last", "--budget", "1"]) == Exit.REFUSED
    assert "the job has ended" in capfd.readouterr().err


def test_an_extension_whose_answer_was_lost_is_sent_again_as_the_same(market, capfd):
    market.script = Script(ends=False)
    assert execute(DETACHED) == 0
    market.faults = {"ExtendJob": 2}
    assert execute(["extend", "@last", "--budget", "1"]) == 0
    requests = [request for name, request in market.requests if name == "ExtendJob"]
    assert len(requests) == 3
    assert len({request.request_id for request in requests}) == 1


@pytest.mark.parametrize(
    ("arguments", "rpc", "word"),
    [
        (["pause", HOST_ID], "PauseHost", "paused"),
        (["resume", HOST_ID], "ResumeHost", "online"),
        (["reclaim", HOST_ID], "ReclaimHost", "draining"),
        (["admin", "quarantine", HOST_ID, "--reason", "odd usage"], "QuarantineHost", "quarantined"),
        (["admin", "unquarantine", HOST_ID], "UnquarantineHost", "online"),
    ],
)
def test_hosts_are_held_back_and_let_go(market, capfd, arguments, rpc, word):
    assert execute(arguments) == 0
    assert word in capfd.readouterr().out
    assert execute([*arguments, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["host"]["state"] == word.upper()
    assert market.names().count(rpc) == 2
    assert execute([argument.replace(HOST_ID, "host_9") for argument in arguments]) == Exit.NOT_FOUND
    assert "no host host_9" in capfd.readouterr().err


def test_the_reason_of_a_quarantine_is_sent(market, capfd):
    assert execute(["admin", "quarantine", HOST_ID, "--reason", "odd usage"]) == 0
    assert sent(market, "QuarantineHost").reason == "odd usage"


def test_the_end_of_an_output_is_enough(market, capfdbinary):
    market.script = Script(output=[("STDOUT", b"a" * 1_000), ("STDOUT", b"b" * 600), ("STDERR", b"c" * 5)])
    assert execute(DETACHED) == 0
    capfdbinary.readouterr()
    market.cuts = {"ReadLogs": [1]}
    assert execute(["logs", "@last", "--tail", "1kB"]) == 0
    out, err = capfdbinary.readouterr()
    assert out == b"a" * 395 + b"b" * 600
    assert b"ccccc" in err


def test_credits_are_shown_and_verified(market, capfd):
    market.script = Script(
        credited=True, state="FAILED", cause="HOST", end_reason="HOST_LOST", exit_code=None
    )
    assert execute([*RUN, "--", "a"]) == Exit.HOST_LOST
    assert execute(["bill", "@last", "--verify"]) == 0
    out = capfd.readouterr().out
    assert "credited    1.50 credits, because a host was at fault" in out
    assert "credited of line 2: 0.50 (the host was lost)" in out
    assert "verified: 2 lines" in out


def test_a_wrong_credit_is_said_to_be_wrong(market, capfd, monkeypatch):
    market.script = Script(credited=True)
    assert execute([*RUN, "--", "a"]) == 0
    bill = market.jobs[0].bill()
    bill.attempts[0].credits[0].earning_micro -= 1
    monkeypatch.setattr(market.jobs[0], "bill", lambda: bill)
    assert execute(["bill", "@last", "--verify"]) == Exit.BROKEN
    assert "WRONG: " in capfd.readouterr().out


def test_times_are_local_or_utc_and_name_their_zone(fake_market):
    """In a process of its own: a zone is the whole process's."""
    for extra, told in (
        ({}, "2026-11-01 01:00:00 XST"),
        ({"USANCE_UTC": "1"}, "2026-11-01 00:00:00 UTC"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "cli", "statement", "--all"],
            env={**os.environ, "TZ": "XST-1", **extra},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told in done.stdout


def test_only_what_is_called_is_imported():
    """A command does not wait for gRPC before it is needed, nor for the other commands."""
    program = "import sys; from cli.main import execute; execute(['jobs', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "cli.commands.jobs" in loaded
    assert (
        not {"grpc", "google", "asyncio", "cli.commands.admin", "cli.client.market", "cli.reports"} & loaded
    )


def test_what_only_the_job_may_see_comes_from_files_and_variables(market, capfd, tmp_path, monkeypatch):
    (tmp_path / "key").write_bytes(b"canary\xff\n")
    (tmp_path / "password").write_text("canary two\n")
    monkeypatch.setenv("TOKEN", "canary three")
    file = tmp_path / "job.toml"
    file.write_text(
        'image = "img"\ncommand = ["a"]\nbudget = 5\nregistry-user = "me"\n'
        f'registry-password-file = "{tmp_path}/password"\n[secret]\nkey = "{tmp_path}/key"\n'
    )
    given = ["--secret", "TOKEN", "--secret", f"key={tmp_path}/key"]
    login = ["--registry-user", "me", "--registry-password-file", f"{tmp_path}/password"]
    for arguments, names in (
        ([*RUN, "--json", *given, *login, "--", "a"], ["TOKEN", "key"]),
        (["apply", "-y", "--json", str(file)], ["key"]),
    ):
        assert execute(arguments) == 0
        found = sent(market, "SubmitJob").confidential
        values = {secret.name: secret.value for secret in found.secrets}
        assert list(values) == names
        assert values["key"] == b"canary\xff\n"
        assert values.get("TOKEN", b"canary three") == b"canary three"
        assert (found.registry.username, found.registry.password) == ("me", "canary two")
        assert "canary" not in "".join(capfd.readouterr())
    assert execute(DETACHED) == 0
    assert not sent(market, "SubmitJob").HasField("confidential")


@pytest.mark.parametrize(
    "wrong",
    [
        ["--secret", "a/b=x"],
        ["--secret", "NOBODY_HAS_THIS"],
        ["--secret", "a="],
        ["--secret", "a=/nowhere/at/all"],
        ["--secret", "a=-", "--secret", "b=-"],
        ["--registry-user", "me"],
        ["--secret", "HOME", "--isolation", "process"],
    ],
)
def test_secrets_that_can_not_be_had_are_wrong_use(wrong, market, capfd):
    assert execute([*RUN, *wrong, "--", "a"]) == Exit.WRONG_USE
    assert market.jobs == []
