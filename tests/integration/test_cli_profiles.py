"""Profiles, variables, help by topic, and what the command line does when it fails itself."""

import json
import stat

import pytest

from cli.exits import Exit
from cli.main import execute, usance
from cli.screens import moment
from cli.topics import TOPICS
from tests.docs.reference import walk
from tests.support.fake_job import HOST_ID, STORED_AT_MS, Script
from tests.support.fake_market import TOKEN, FakeMarket

DETACHED = ["run", "-y", "--detach", "--image", "i", "--budget", "5"]


@pytest.fixture
def market(fake_market: FakeMarket) -> FakeMarket:
    return fake_market


def test_profiles_are_kept_beside_each_other(market, capfd, monkeypatch, tmp_path):
    file, secret = tmp_path / "profile.toml", tmp_path / "token"
    secret.write_text(TOKEN)
    assert execute(["login", "--token-file", str(secret)]) == 0
    place = ["--server", market.target, "--ca", str(market.ca)]
    assert execute(["login", "--profile", "work", "--token-file", str(secret), *place]) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for name in market.environment:
        monkeypatch.delenv(name)
    capfd.readouterr()
    assert execute(["profile", "list"]) == 0
    rows = capfd.readouterr().out.splitlines()[1:]
    assert rows == [f"* default  {market.target}", f"  work     {market.target}"]
    assert execute(["whoami"]) == execute(["whoami", "--profile", "work"]) == 0
    assert execute(["whoami", "--profile", "play"]) == Exit.WRONG_USE
    assert "there is no profile 'play'" in capfd.readouterr().err
    assert execute(["profile", "use", "work"]) == 0
    assert execute(["logout"]) == 0
    assert "the profile that counts now is default" in capfd.readouterr().out
    assert execute(["profile", "use", "work"]) == Exit.WRONG_USE
    assert execute(["login", "--profile", "a b", "--token-file", str(secret), *place]) == Exit.WRONG_USE
    assert execute(["logout"]) == 0
    assert not file.exists()


def test_a_named_profile_is_meant_whole(market, capfd, monkeypatch, tmp_path):
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    place = ["--server", market.target, "--ca", str(market.ca)]
    assert execute(["login", "--profile", "work", "--token-file", str(secret), *place]) == 0
    monkeypatch.setenv("USANCE_TOKEN", "usat_of_somebody_else")
    assert execute(["whoami"]) == Exit.NOT_ALLOWED
    assert execute(["whoami", "--profile", "work"]) == 0
    monkeypatch.setenv("USANCE_PROFILE", "work")
    assert execute(["whoami"]) == Exit.NOT_ALLOWED


def test_every_option_can_come_from_the_environment(market, capfd, monkeypatch):
    monkeypatch.setenv("USANCE_JSON", "1")
    monkeypatch.setenv("USANCE_RUN_YES", "1")
    monkeypatch.setenv("USANCE_RUN_DETACH", "1")
    monkeypatch.setenv("USANCE_RUN_BUDGET", "2.5")
    monkeypatch.setenv("USANCE_RUN_ENV", "A=1 B=2")
    monkeypatch.setenv("USANCE_RUN_IMAGE", "i")
    assert execute(["run", "--", "a"]) == 0
    assert json.loads(capfd.readouterr().out)["job"]["spec"]["budget_micro"] == 2_500_000
    assert dict(market.jobs[0].spec.env) == {"A": "1", "B": "2"}
    assert execute(["run", "--budget", "x", "--", "a"]) == Exit.WRONG_USE
    assert json.loads(capfd.readouterr().err)["error"]["code"] == "WRONG_USE"


@pytest.mark.parametrize("topic", TOPICS)
def test_each_topic_is_told_within_a_usual_terminal(capfd, topic):
    assert execute(["help", topic]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].endswith(".")
    assert max(map(len, lines)) <= 130


def test_help_is_that_of_the_command(capfd):
    for name, _ in walk(usance, "usance"):
        assert execute(["help", *name.split()[1:]]) == 0
        assert f"Usage: {name} [OPTIONS]" in capfd.readouterr().out
    assert execute(["help"]) == 0
    out = capfd.readouterr().out
    assert all(topic in out for topic in TOPICS)
    assert execute(["help", "exit-code"]) == Exit.WRONG_USE
    assert "did you mean exit-codes?" in capfd.readouterr().err


def test_a_mistake_of_our_own_is_one_sentence_and_its_place_only_on_demand(market, capfd, monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("cli.client.market.Market.get_wallet", fail)
    assert execute(["wallet"]) == Exit.BROKEN
    err = capfd.readouterr().err
    assert err == "usance: a mistake of the program's own: ZeroDivisionError: of ours; --debug shows where\n"
    assert execute(["wallet", "--debug"]) == Exit.BROKEN
    assert "Traceback" in capfd.readouterr().err
    assert execute(["show", "job_zz", "--debug"]) == Exit.WRONG_USE
    assert "Traceback" in capfd.readouterr().err


def test_a_host_is_called_by_its_id_a_beginning_or_its_name(market, capfd):
    for name in (HOST_ID, "host", "1", "box\x1b[2Jevil"):
        assert execute(["pause", name]) == 0
    assert execute(["pause", "none"]) == Exit.NOT_FOUND


def test_logs_of_stderr_alone_and_with_times(market, capfdbinary):
    market.script = Script(
        output=[("STDOUT", b"one\ntw"), ("STDERR", b"oh\n"), ("STDOUT", b"o\n\nthree"), ("STDERR", b"no")]
    )
    assert execute([*DETACHED, "--", "a"]) == 0
    capfdbinary.readouterr()
    assert execute(["logs", "@last", "--stderr"]) == 0
    assert capfdbinary.readouterr() == (b"oh\nno", b"")
    assert execute(["logs", "@last", "--timestamps"]) == 0
    out, err = capfdbinary.readouterr()
    stamp = f"{moment(STORED_AT_MS)}  ".encode()
    assert out == b"".join(stamp + line for line in (b"one\n", b"two\n", b"\n", b"three"))
    assert err == stamp + b"oh\n" + stamp + b"no"


def test_the_last_lines_of_the_logs(market, capfdbinary):
    lines = [b"%05d\n" % number for number in range(20_000)]
    market.script = Script(output=[("STDOUT", b"".join(lines[:9_000])), ("STDOUT", b"".join(lines[9_000:]))])
    assert execute([*DETACHED, "--", "a"]) == 0
    for tail, wanted in (
        ("1", lines[-1:]),
        ("3", lines[-3:]),
        ("10000", lines[-10_000:]),
        ("99999", lines),
        ("12B", lines[-2:]),
    ):
        capfdbinary.readouterr()
        assert execute(["logs", "@last", "--tail", tail]) == 0
        assert capfdbinary.readouterr().out == b"".join(wanted)
    assert execute(["logs", "@last", "--tail", "0"]) == Exit.WRONG_USE
    market.script = Script(output=[])
    assert execute([*DETACHED, "--", "a"]) == 0
    capfdbinary.readouterr()
    assert execute(["logs", "@last", "--tail", "5"]) == 0
    assert capfdbinary.readouterr().out == b""


def test_show_tells_what_has_happened(market, capfd):
    market.script = Script(ends=False)
    assert execute([*DETACHED, "--", "a"]) == 0
    capfd.readouterr()
    assert execute(["show", "@last"]) == 0
    out = capfd.readouterr().out
    assert "submitted: taken in\n" in out
    assert "started: its command runs\n" in out
    assert out.endswith("and 2 records billed; see: usance bill\n")
    assert execute(["show", "@last", "--json"]) == 0
    assert [each["kind"] for each in json.loads(capfd.readouterr().out)["events"]][:2] == [
        "SUBMITTED",
        "STARTED",
    ]
