"""Jobs from files, against a fake market."""

import io
import json
import re
from pathlib import Path

import click
import pytest

from cli.commands.wanted import job_options
from cli.exits import Exit
from cli.main import execute
from tests.support.fake_market import FakeMarket
from usance.v1 import types_pb2

DOCS = Path(__file__).parents[2] / "docs"
GOOD = 'image = "i"\ncommand = ["a"]\nbudget = 5\n'


@pytest.fixture
def market(fake_market: FakeMarket) -> FakeMarket:
    return fake_market


@pytest.fixture
def job_file(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "job.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_the_example_of_the_docs_is_the_job_it_says(market, capfd, job_file):
    (example,) = re.findall(r"```toml\n(.*?)```", (DOCS / "job-file.md").read_text(), re.DOTALL)
    assert execute(["apply", "-y", job_file(example)]) == 0
    assert market.jobs[0].spec == types_pb2.JobSpec(
        name="train",
        image="python:3.12",
        command=["python", "train.py", "--epochs", "10"],
        env={"SEED": "7"},
        gpus=types_pb2.GpuRequest(count=2, model="rtx4090", vram_bytes_min=24 * 10**9),
        isolation_min=types_pb2.ISOLATION_CONTAINER,
        gpu_hour_price_micro_max=600_000,
        budget_micro=5_000_000,
        run_ms_max=7_200_000,
        retries_max=2,
        policy=types_pb2.POLICY_BALANCED,
        priority=50,
        on_host_loss=types_pb2.ON_HOST_LOSS_REPLACE,
        host=types_pb2.HostRequest(regions=["eu-west", "eu-north"]),
        labels={"team": "vision"},
        network=types_pb2.NETWORK_ALLOW_LIST,
        network_destinations=["example.org:443"],
    )


def test_the_mistakes_that_the_docs_show_are_told_so(market, capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    lines = ["", "", "", "", "", 'gpus = "rtx4090"', "", "", 'budget = "5 credits"', 'command = ["a"]']
    Path("train.toml").write_text("\n".join(lines))
    assert execute(["apply", "-y", "train.toml"]) == Exit.WRONG_USE
    (shown,) = re.findall(r"```text\n(.*?)```", (DOCS / "job-file.md").read_text(), re.DOTALL)
    assert capfd.readouterr().err == shown
    assert market.requests == []


def test_a_file_may_come_from_standard_input_and_is_not_run_when_only_asked(market, capfd, monkeypatch):
    for flags, jobs in ((["--dry-run"], 0), (["-y", "--detach"], 1)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
        assert execute(["apply", *flags, "-"]) == 0
        assert len(market.jobs) == jobs


def test_every_option_of_a_job_is_a_key(market, capfd, job_file):
    """By its kind: a flag, a list, a table, or one value."""
    values = {
        "gpu": '"any"', "vram": '"1GB"', "memory": '"1GB"', "cpu": "1", "image": '"i"',
        "isolation": '"container"', "network": '"none"', "max-price": "1", "budget": "5",
        "max-time": '"1h"', "max-wait": '"1h"',
        "grace": '"1s"', "retries": "1", "policy": '"cheapest"', "priority": "1", "on-host-loss": '"fail"',
        "note": '"n"', "driver": '"550"', "cuda": '"12.4"', "cc": '"8.0"', "reliability": '"99%"',
        "name": '"n"', "simulated": "true", "region": '["a", "b"]', "reach": '["example.org:443"]',
        "registry-user": '"me"', "registry-password-file": '"/dev/null"', "secret": '["PATH"]',
    }  # fmt: skip
    tables = {"env": "A = 1", "label": 'a = "b"', "host-label": 'rack = "b7"'}
    options = click.command()(job_options(lambda spec: None)).params
    keys = {
        max(option.opts, key=len).removeprefix("--") for option in options if isinstance(option, click.Option)
    }
    assert keys == set(values) | set(tables)
    text = "".join(f"{key} = {value}\n" for key, value in values.items()) + 'command = ["a"]\n'
    text += "".join(f"[{key}]\n{content}\n" for key, content in tables.items())
    assert execute(["apply", "-y", job_file(text)]) == 0, capfd.readouterr().err
    # Underscores are as good as dashes.
    assert execute(["apply", "-y", job_file(text.replace("max-", "max_"))]) == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "budget is missing"),
        ("budget = 5\n", "command is missing"),
        (GOOD.replace('["a"]', '"a b"'), ":2: command is an array of words"),
        (GOOD + "simulated = 1\n", ":4: simulated is true or false"),
        (GOOD + "gpu = true\n", ":4: gpu takes a value, not true or false"),
        (GOOD + 'gpu = ["a", "b"]\n', ":4: gpu takes one value, not a list"),
        (GOOD + "[gpu]\na = 1\n", ":4: gpu is no table"),
        (GOOD + "retries = 11\n", ":4: retries: 11 is not in the range 0<=x<=10"),
        (GOOD + '[env]\n1A = "b"\n', ":4: env: '1A=b' is no variable"),
        (GOOD + "network = \n", ":4: no TOML"),
        ('command = ["a"]\nbudget = 1\n', "a container needs an image"),
        ("\x00", "no TOML"),
    ],
)
def test_a_wrong_file_is_told_and_nothing_is_done(market, capfd, job_file, text, sentence):
    assert execute(["apply", "-y", job_file(text)]) == Exit.WRONG_USE
    out, err = capfd.readouterr()
    assert sentence in err
    assert out == ""
    assert "Traceback" not in err
    assert market.requests == []


def test_mistakes_are_json_when_asked(market, capfd, job_file):
    assert execute(["apply", "--json", "-y", job_file("gpus = 1\n")]) == Exit.WRONG_USE
    faults = json.loads(capfd.readouterr().err)["error"]["faults"]
    assert [fault["field"].rpartition("/")[2] for fault in faults] == ["job.toml", "job.toml", "job.toml:1"]


@pytest.mark.parametrize("name", ["/nonexistent/job.toml", "/dev/zero"])
def test_what_can_not_be_read_is_told(market, capfd, name):
    assert execute(["apply", "-y", name]) == Exit.WRONG_USE
    assert name in capfd.readouterr().err


def test_bytes_that_are_no_text_are_told(market, capfd, tmp_path):
    (tmp_path / "j").write_bytes(b"\xff")
    assert execute(["apply", "-y", str(tmp_path / "j")]) == Exit.WRONG_USE
    assert "is not UTF-8" in capfd.readouterr().err
