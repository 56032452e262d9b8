"""The command line against a fake market over real gRPC and TLS."""

import json
import os
import re
import stat
import threading
from functools import partial

import pytest

from cli.client.calls import Patience
from cli.exits import Exit
from cli.main import execute
from tests.rig.parts import wait_until
from tests.support.fake_job import HOST_ID, FakeJob, Script
from tests.support.fake_market import TOKEN, FakeMarket
from usance.v1 import types_pb2

RUN = ["run", "-y", "--image", "img", "--budget", "5"]


@pytest.fixture
def market(fake_market):
    return fake_market


def test_a_run_gives_back_both_streams_byte_for_byte_and_the_exit_code(market, capfdbinary):
    odd = bytes(range(256)) * 300
    market.script = Script(
        output=[("STDOUT", b"one\n"), ("STDERR", b"no newline"), ("STDOUT", odd)],
        exit_code=37,
        state="FAILED",
    )
    assert execute([*RUN, "--", "python", "train.py"]) == 37
    out, err = capfdbinary.readouterr()
    assert out == b"one\n" + odd
    assert b"no newline" in err
    assert b"exit code 37, 1.500 s billed, cost 1.50 credits; see: usance bill job_" in err.splitlines()[-1]


def test_a_run_sends_what_was_asked(market, capfd):
    line = [
        "run",
        "--gpu",
        "rtx4090:2",
        "--vram",
        "24GB",
        "--image",
        "img",
        "--env",
        "A=b=c",
        "--max-price",
        "0.60",
        "--budget",
        "5",
        "--max-time",
        "1h30m",
        "--max-wait",
        "10m",
        "--grace",
        "0s",
        "--retries",
        "3",
        "-y",
        "/usr/bin/python3",
        "-c",
        "pass",
        "--budget",
        "9",
    ]
    assert execute(line) == 0
    spec = market.jobs[0].spec
    assert spec == types_pb2.JobSpec(
        name="python3",
        image="img",
        command=["/usr/bin/python3", "-c", "pass", "--budget", "9"],
        env={"A": "b=c"},
        gpus=types_pb2.GpuRequest(count=2, model="rtx4090", vram_bytes_min=24 * 10**9),
        isolation_min=types_pb2.ISOLATION_CONTAINER,
        gpu_hour_price_micro_max=600_000,
        budget_micro=5_000_000,
        run_ms_max=5_400_000,
        queue_ms_max=600_000,
        stop_grace_ms=0,
        retries_max=3,
        policy=types_pb2.POLICY_BALANCED,
        priority=50,
        on_host_loss=types_pb2.ON_HOST_LOSS_WAIT,
        network=types_pb2.NETWORK_NONE,
    )
    assert not spec.HasField("host"), "nothing was asked of it"


def test_an_unset_grace_is_not_a_grace_of_zero(market, capfd):
    assert execute([*RUN, "--", "a"]) == 0
    assert not market.jobs[0].spec.HasField("stop_grace_ms")


def test_dropped_streams_go_on_where_they_were(market, capfdbinary):
    pieces = [("STDOUT", os.urandom(1_000)) for _ in range(40)]
    market.script = Script(output=pieces)
    market.cuts = {"ReadLogs": [3, 0, 7, 1], "WatchJob": [1, 0, 1]}
    assert execute([*RUN, "-v", "--", "a"]) == 0
    out, err = capfdbinary.readouterr()
    assert out == b"".join(data for _, data in pieces)
    assert market.names().count("ReadLogs") == 5
    assert err.count(b"record 1,") == err.count(b"record 2,") == 1
    assert err.count(b"trying again") == 1


def test_a_retried_submit_makes_one_job(market, capfd):
    market.faults = {"SubmitJob": 3}
    assert execute([*RUN, "--", "a"]) == 0
    assert market.names().count("SubmitJob") == 4
    assert len(market.jobs) == 1


def test_who_is_cut_off_is_told_where_to_look(market, capfd, monkeypatch):
    monkeypatch.setattr("cli.client.market.Patience", partial(Patience, call_ms=0))
    market.faults = {"SubmitJob": 1}
    assert execute([*RUN, "--", "a"]) == Exit.UNREACHABLE
    assert "the job may have been taken in; see: usance jobs" in capfd.readouterr().err
    market.faults = {"GetJob": 1}
    assert execute([*RUN, "--", "a"]) == Exit.UNREACHABLE
    assert f"goes on: usance logs -f {market.jobs[-1].id}" in capfd.readouterr().err


def test_who_waits_is_told_the_place_and_what_would_help(market, capfd, monkeypatch):
    monkeypatch.setattr("cli.follow.QUEUE_LOOK_S", 0.01)
    monkeypatch.setattr("cli.follow.QUEUE_FIRST_S", 0.01)
    market.script = Script(waits=True)

    def cancel_when_told() -> None:
        try:
            wait_until(lambda: market.names().count("GetJob") > 1, "somebody asks why, and again")
        finally:
            with market.changed:
                market.jobs[0].cancelled = True
                market.changed.notify_all()

    other = threading.Thread(target=cancel_when_told)
    other.start()
    assert execute([*RUN, "--", "a"]) == Exit.CANCELLED
    other.join()
    err = capfd.readouterr().err
    assert "usance: waits, place 3 in the queue\n" in err
    assert "usance: 2 hosts left out: GPU memory (at most 24 GiB)\n" in err
    assert "usance: what would help: ask for 24 GiB of GPU memory\n" in err


def test_a_token_that_can_not_be_one_is_not_sent(market, capfd, monkeypatch):
    for token in ("two words", "ümlaut", "a\nb"):
        monkeypatch.setenv("USANCE_TOKEN", token)
        assert execute(["wallet"]) == 2
        assert "was something else pasted?" in capfd.readouterr().err
    assert market.requests == []


def test_output_that_is_not_what_the_job_wrote_is_told(market, capfd, monkeypatch):
    market.script = Script(output=[("STDOUT", b"right")])
    monkeypatch.setattr(FakeJob, "pieces", lambda job: [])
    assert execute([*RUN, "--", "a"]) == Exit.BROKEN
    assert "digests differ" in capfd.readouterr().err


def test_incomplete_output_is_told(market, capfd):
    market.script = Script(
        complete=False, state="FAILED", cause="HOST", end_reason="HOST_LOST", exit_code=None
    )
    assert execute([*RUN, "--", "a"]) == Exit.HOST_LOST
    assert "may not be complete" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["run", "--", "a"], 2, "Missing option '--budget'"),
        (["run", "--budget", "1", "--image", "i", "--", "a"], Exit.NOT_CONFIRMED, "add --yes"),
        (["run", "--budget", "1", "-y", "--", "a"], 2, "--image"),
        (["run", "--budget", "1", "-y", "--image", "i"], 2, "Missing argument 'COMMAND"),
        (["run", "--budget", "0", "-y", "--image", "i", "a"], 2, "can pay for nothing"),
        (["run", "--budget", "a lot", "a"], 2, "write it like 5 or 0.60"),
        (["run", "--budget", "0.1234567", "a"], 2, "six decimals"),
        (["run", "--budget", "1", "--max-time", "2", "a"], 2, "write it like 2h"),
        (["run", "--budget", "1", "--vram", "big", "a"], 2, "write it like 24GB"),
        (["run", "--budget", "1", "--gpu", "a100:0", "a"], 2, "1 to 64"),
        (["run", "--budget", "1", "--env", "1A=b", "a"], 2, "NAME=value"),
        (["run", "--budget", "1", "--retries", "11", "a"], 2, "0<=x<=10"),
        ([*RUN, "--name", "too-dear", "a"], Exit.INSUFFICIENT_FUNDS, "the wallet holds 1.00"),
        ([*RUN, "--name", "bad", "a"], Exit.REFUSED, "spec.name: 1 to 64 characters"),
        (["show", "job_" + "9" * 26], Exit.NOT_FOUND, "no job"),
        (["show", "job_zz"], 2, "no job of yours is named or begins with"),
        (["show", "@last"], 2, "no jobs yet"),
        (["show"], 2, "Missing argument 'JOB'"),
        (["frobnicate"], 2, "there is no command 'frobnicate'; see: usance --help"),
        (["walet"], 2, "did you mean wallet?"),
        (["offers", "--server", "nowhere"], 2, "is no address"),
        (["offers", "--token-file", "/nonexistent"], 2, "--token-file: /nonexistent can't be read"),
        (["login", "--token-file", "/nonexistent"], 2, "can't be read"),
        ([*RUN, "--", "a\udcff"], 2, "is not UTF-8"),
        ([*RUN, "--env", "A=\udcff", "--", "a"], 2, "is not UTF-8"),
        (["offers", "--image", "\udcff"], 2, "is not UTF-8"),
        ([*RUN, "--name", "\udcff", "--", "a"], 2, "is not UTF-8"),
        (["offers", "--ca", "/nonexistent"], 2, "can't be read"),
        (["admin", "account-create", "x"], 2, "Missing option '--role'"),
    ],
)
def test_a_wrong_use_gives_one_clear_sentence_and_the_right_code(market, capfd, arguments, code, sentence):
    assert execute(arguments) == code
    out, err = capfd.readouterr()
    assert sentence in err
    assert out == ""
    assert "Traceback" not in err


def test_errors_are_json_when_asked(market, capfd):
    assert (
        execute(["run", "-y", "--json", "--image", "i", "--budget", "5", "--name", "bad", "a"])
        == Exit.REFUSED
    )
    told = json.loads(capfd.readouterr().err)
    # Of the command, and so the same for all that it asked.
    assert re.fullmatch(r"req_[0-9a-z]{26}", told["error"].pop("request_id"))
    assert told == {
        "schema_version": 1,
        "error": {
            "code": "INVALID_FIELD",
            "message": "a field is wrong",
            "faults": [{"field": "spec.name", "description": "1 to 64 characters"}],
        },
    }
    assert execute(["offers", "--json", "--frob"]) == 2
    mistake = json.loads(capfd.readouterr().err)["error"]
    assert (mistake["code"], "request_id" in mistake) == ("WRONG_USE", False)


def test_a_wrong_token_and_a_wrong_authority_are_told_apart(market, capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("USANCE_TOKEN", "usat_bad")
    assert execute(["wallet"]) == Exit.NOT_ALLOWED
    assert "the token is unknown" in capfd.readouterr().err
    monkeypatch.setenv("USANCE_TOKEN", TOKEN)
    other = tmp_path / "other"
    other.mkdir()
    another = FakeMarket(other)
    try:
        assert execute(["wallet", "--ca", str(another.ca)]) == Exit.UNREACHABLE
    finally:
        another.stop()
    assert "did not prove to be the coordinator" in capfd.readouterr().err


def test_detach_prints_the_id_alone_and_the_job_can_be_found_again(market, capfd):
    market.script = Script(ends=False)
    assert execute(["run", "-y", "--detach", "--image", "i", "--budget", "5", "--", "a"]) == 0
    job_id = capfd.readouterr().out.strip()
    assert job_id == market.jobs[0].id
    for name in (job_id, job_id[:-1], job_id.removeprefix("job_")[:-1], "@last"):
        assert execute(["show", name]) == 0
        assert job_id in capfd.readouterr().out
    assert execute(["run", "-y", "--detach", "--image", "i", "--budget", "5", "--", "a"]) == 0
    assert execute(["show", "job_000"]) == 2
    assert "2 jobs of yours are named or begin with" in capfd.readouterr().err
    assert execute(["cancel", "@last"]) == 0
    assert execute(["wait", "@last"]) == Exit.CANCELLED


def test_wait_and_logs_tell_what_run_tells(market, capfdbinary):
    market.script = Script(output=[("STDOUT", b"x" * 70_000)], exit_code=5, state="FAILED")
    assert execute(["run", "-y", "--detach", "--image", "i", "--budget", "5", "--", "a"]) == 0
    capfdbinary.readouterr()
    assert execute(["wait", "@last"]) == 5
    assert execute(["logs", "@last"]) == 0
    assert capfdbinary.readouterr().out == b"x" * 70_000


def test_a_bill_is_shown_and_verified(market, capfd):
    assert execute([*RUN, "--", "a"]) == 0
    assert execute(["bill", "@last", "--verify"]) == 0
    assert "verified: 2 lines computed again" in capfd.readouterr().out
    assert execute(["bill", "@last", "--verify", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["schema_version"] == 1
    assert told["bill"]["charged_micro"] == 1_500_000
    assert told["verdict"]["problems"] == []


def test_a_saved_bill_verifies_by_itself(market, capfd, monkeypatch, tmp_path):
    saved = tmp_path / "bill.json"
    assert execute([*RUN, "--", "a"]) == 0
    capfd.readouterr()
    assert execute(["bill", "@last", "--json"]) == 0
    saved.write_text(capfd.readouterr().out)
    asked = len(market.requests)
    monkeypatch.delenv("USANCE_SERVER")
    assert execute(["bill", "--file", str(saved), "--verify"]) == 0
    assert "verified: 2 lines computed again" in capfd.readouterr().out
    saved.write_text(saved.read_text().replace('"charged_micro": 1500000', '"charged_micro": 1400000'))
    assert execute(["bill", "--file", str(saved), "--verify"]) == Exit.BROKEN
    for text, sentence in (
        ("{}", "holds no bill"),
        ('{"bill": {}}', "bill.job_id is missing"),
        ("x", "no JSON"),
    ):
        saved.write_text(text)
        assert execute(["bill", "--file", str(saved)]) == Exit.WRONG_USE
        assert sentence in capfd.readouterr().err
    for arguments in (["bill"], ["bill", "@last", "--file", str(saved)], ["bill", "--file", "/nonexistent"]):
        assert execute(arguments) == Exit.WRONG_USE
    assert len(market.requests) == asked


def test_no_match_is_told_by_quote_and_dry_run(market, capfd):
    for command in (["quote"], ["run", "--dry-run"]):
        assert execute([*command, "--image", "i", "--budget", "5", "--", "a"]) == 0
        out = capfd.readouterr().out
        assert f"{HOST_ID}: 2 x SIMULATED RTX 4090" in out
        assert "price cap 0.30 (0.42 would do)" in out
    market.offers.clear()
    assert execute(["quote", "--image", "i", "--budget", "5", "--", "a"]) == Exit.NO_MATCH
    assert "none fits now" in capfd.readouterr().out
    assert market.jobs == []


def test_what_strangers_wrote_reaches_the_terminal_escaped(market, capfd):
    assert execute(["hosts"]) == 0
    out = capfd.readouterr().out
    assert "box\\x1b[2Jevil" in out
    assert "\x1b" not in out


def test_login_keeps_a_checked_token_for_the_owner_alone(market, capfd, monkeypatch, tmp_path):
    for name in ("USANCE_SERVER", "USANCE_TOKEN", "USANCE_CA"):
        monkeypatch.delenv(name)
    assert execute(["whoami"]) == 2
    assert "usance login" in capfd.readouterr().err
    place = ["--server", market.target, "--ca", str(market.ca)]
    monkeypatch.setattr("sys.stdin", _Lines("usat_bad\n"))
    assert execute(["login", *place]) == Exit.NOT_ALLOWED
    assert not (tmp_path / "profile.toml").exists()
    monkeypatch.setattr("sys.stdin", _Lines(f"{TOKEN}\n"))
    assert execute(["login", *place]) == 0
    assert stat.S_IMODE((tmp_path / "profile.toml").stat().st_mode) == 0o600
    assert execute(["whoami"]) == 0
    assert "ann (acc_1)" in capfd.readouterr().out


class _Lines:
    def __init__(self, text: str) -> None:
        self._text = text

    def isatty(self) -> bool:
        return False

    def readline(self) -> str:
        return self._text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["offers", "--gpu", "4090:2"], "SIMULATED RTX 4090"),
        (["jobs"], "no jobs"),
        (["wallet"], "5.25 credits, free to use"),
        (["enroll-token"], "usen_x"),
        (["admin", "account-create", "bob", "--role", "buyer"], "bob is acc_2"),
        (["admin", "accounts"], "0.000007"),
        (["admin", "token", "ann"], "usat_new"),
        (["admin", "deposit", "ann", "2.5", "--reason", "paid"], "ann now has 2.50 credits"),
        (["admin", "trial-balance"], "-7.00"),
        (["admin", "audit"], "3 transfers checked, 0 violations found"),
    ],
)
def test_every_other_command_answers_people_and_programs(market, capfd, arguments, told):
    assert execute(arguments) == 0
    assert told in capfd.readouterr().out
    assert execute([*arguments, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["schema_version"] == 1
