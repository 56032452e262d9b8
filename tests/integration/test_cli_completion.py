"""Completion: the scripts, and the names that the market gives, against a fake market."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cli.exits import Exit
from cli.main import execute
from tests.support.fake_job import HOST_ID, Script
from tests.support.fake_market import FakeMarket

DETACHED = ["run", "-y", "--detach", "--image", "i", "--budget", "5"]


@pytest.fixture
def market(fake_market: FakeMarket) -> FakeMarket:
    return fake_market


def completed(monkeypatch, capfd, line: str) -> list[str]:
    """What the shell would offer for the last word of a line."""
    words = shlex.split(line)
    monkeypatch.setenv("_USANCE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - (not line.endswith(" "))))
    capfd.readouterr()
    assert execute([]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    return [answer.partition(",")[2] for answer in out.split()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(market, capfd, shell):
    assert execute(["completion", shell]) == 0
    out, err = capfd.readouterr()
    assert "_usance_completion" in out
    assert f"_USANCE_COMPLETE={shell}_complete" in out
    assert f"usance completion {shell}" in err
    assert market.requests == []
    assert execute(["completion", "tcsh"]) == Exit.WRONG_USE


def test_commands_and_options_are_completed_without_asking_anybody(market, capfd, monkeypatch):
    assert {"statement", "costs"} <= set(completed(monkeypatch, capfd, "usance "))
    assert completed(monkeypatch, capfd, "usance statem") == ["statement"]
    assert completed(monkeypatch, capfd, "usance costs --b") == ["--by"]
    assert completed(monkeypatch, capfd, "usance admin trial") == ["trial-balance"]
    assert market.requests == []


def test_names_are_the_markets(market, capfd, monkeypatch):
    assert execute([*DETACHED, "--", "a"]) == 0
    job_id = market.jobs[0].id
    assert completed(monkeypatch, capfd, "usance show ") == ["@last", job_id]
    assert completed(monkeypatch, capfd, "usance cancel job_") == [job_id]
    assert completed(monkeypatch, capfd, "usance pause ho") == [HOST_ID]
    assert completed(monkeypatch, capfd, "usance admin quarantine ")[0] == HOST_ID
    assert completed(monkeypatch, capfd, "usance token revoke ") == [
        "tok_00000000000000aa",
        "tok_00000000000000bb",
    ]
    assert completed(monkeypatch, capfd, "usance admin deposit a") == ["ann"]


def test_no_market_is_no_error_at_the_prompt(market, capfd, monkeypatch):
    monkeypatch.setenv("USANCE_TOKEN", "usat_bad")
    assert completed(monkeypatch, capfd, "usance show ") == []
    market.faults = {"ListJobs": 1}
    monkeypatch.setenv("USANCE_TOKEN", "usat_good")
    assert completed(monkeypatch, capfd, "usance show ") == []
    monkeypatch.delenv("USANCE_SERVER")
    assert completed(monkeypatch, capfd, "usance show ") == []


def test_bash_itself_completes(market, tmp_path):
    assert execute([*DETACHED, "--", "a"]) == 0
    program = tmp_path / "usance"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cli "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(usance completion bash 2>/dev/null)"; COMP_WORDS=(usance logs job_); COMP_CWORD=2;'
        ' _usance_completion usance; echo "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{market.jobs[0].id}\n"


def test_a_job_is_called_by_its_name(market, capfd):
    for name in ("train", "eval", "train"):
        market.script = Script(ends=len(market.jobs) != 2)
        assert execute([*DETACHED, "--name", name, "--", "a"]) == 0
    capfd.readouterr()
    assert execute(["show", "eval"]) == 0
    assert market.jobs[1].id in capfd.readouterr().out
    # Two are called so, and one of them runs.
    assert execute(["cancel", "train"]) == 0
    assert [job.cancelled for job in market.jobs] == [False, False, True]
    assert execute(["show", "train"]) == Exit.WRONG_USE
    assert "2 jobs of yours are named or begin with 'train'" in capfd.readouterr().err
