"""`usance top`, into a pipe and on a terminal, against a fake market."""

import fcntl
import json
import struct
import sys
import termios

import pytest

from cli.exits import Exit
from cli.main import execute
from tests.integration.test_cli_terminal import Terminal
from tests.support.fake_job import Script
from tests.support.fake_market import FakeMarket
from usance.v1 import types_pb2

FIGURES = types_pb2.JobFigures(
    cpu_milli=1_500,
    memory_bytes=2**30,
    gpus=[types_pb2.GpuFigures(gpu_uuid="SIMULATED-1", utilization_percent=93, memory_used_bytes=5 * 2**30)],
)
DETACHED = ["run", "-y", "--detach", "--image", "i", "--budget", "9000"]


@pytest.fixture
def market(fake_market: FakeMarket) -> FakeMarket:
    fake_market.script = Script(ends=False, figures=FIGURES)
    return fake_market


def test_a_pipe_gets_one_look(market, capfd):
    assert execute([*DETACHED, "--", "a"]) == 0
    market.script = Script(waits=True)
    assert execute([*DETACHED, "--", "b"]) == 0
    capfd.readouterr()
    assert execute(["top"]) == 0
    out = capfd.readouterr().out
    assert "2 jobs: 1 running, 0 starting, 1 queued; 3600.00 credits an hour now" in out
    assert "93 %" in out
    assert "5 GiB" in out
    assert "\x1b" not in out
    # Only what runs has figures to be asked for.
    assert market.names().count("GetJob") == 1


def test_json_is_a_line_for_each_look(market, capfd):
    assert execute([*DETACHED, "--", "a"]) == 0
    capfd.readouterr()
    assert execute(["top", "--json", "--count", "2", "--every", "500ms"]) == 0
    looks = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(looks) == 2
    assert looks[0]["jobs"][0]["attempts"][0]["figures"]["gpus"][0]["utilization_percent"] == 93


def test_it_does_not_ask_without_end(market, capfd):
    assert execute(["top", "--every", "1ms"]) == Exit.WRONG_USE
    assert "at least 500ms" in capfd.readouterr().err


def test_a_terminal_is_drawn_again_and_ctrl_c_is_the_way_out(market, monkeypatch):
    # A test run in several processes tells each of them how wide its own terminal is.
    monkeypatch.delenv("COLUMNS", raising=False)
    assert execute([*DETACHED, "--name", "longer-than-the-screen-is-wide", "--", "a"]) == 0
    terminal = Terminal(market, [sys.executable, "-m", "cli", "top", "--every", "500ms"])
    fcntl.ioctl(terminal._master, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 40, 0, 0))
    terminal.until("\x1b[2J\x1b[H1 job: 1 running")
    looks = market.names().count("ListJobs")
    terminal.until("\x1b[J\x1b[H1 job: 1 running")
    # It is narrow now: no line runs over.
    drawn = terminal.text.rpartition("\x1b[H1 job")[2].split("\x1b[J")[0]
    assert looks >= 1
    assert max(len(line.replace("\x1b[K", "")) for line in drawn.splitlines()[1:]) <= 41
    terminal.type("\x03")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text
