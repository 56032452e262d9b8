"""The command line on a real terminal, in a pipe, and interrupted."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from cli.exits import Exit
from cli.main import execute
from tests.rig.parts import wait_until
from tests.support.fake_job import Script
from tests.support.fake_market import FakeMarket

RUN = [sys.executable, "-m", "cli", "run", "--image", "img", "--budget", "5"]


@pytest.fixture
def market(tmp_path):
    fake = FakeMarket(tmp_path)
    yield fake
    fake.stop()


class Terminal:
    """A command on a pseudo-terminal of its own: what it writes, and what a person types."""

    def __init__(self, market: FakeMarket, arguments: list[str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            # The terminal's Ctrl-C goes to whom it belongs to, and is heeded: tests that a script runs in the
            # background have it ignored, and so has all that they start.
            ["env", "--default-signal=INT", "setsid", "--ctty", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, **market.environment},
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self.text = ""

    def until(self, text: str) -> None:
        wait_until(lambda: text in self._read(), f"{text!r} on the terminal")

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def end(self) -> int:
        def ended() -> bool:
            self._read()
            return self.process.poll() is not None

        try:
            wait_until(ended, "the command ends")
        except TimeoutError:
            self.process.kill()
            self.process.wait()
            raise
        self._read()
        os.close(self._master)
        return self.process.returncode

    def _read(self) -> str:
        try:
            while data := os.read(self._master, 65_536):
                self.text += data.decode(errors="replace")
        except (BlockingIOError, OSError):
            pass
        return self.text


def test_a_person_is_asked_before_money_is_held(market):
    terminal = Terminal(market, [*RUN, "--", "a"])
    terminal.until("Run it? [y/N]:")
    assert "rate" in terminal.text
    assert "5.00 credits, the most it can cost" in terminal.text
    assert market.jobs == []
    terminal.type("n\n")
    assert terminal.end() == Exit.NOT_CONFIRMED
    assert market.jobs == []


def test_ctrl_c_at_the_question_leaves_at_once(market):
    terminal = Terminal(market, [*RUN, "--", "a"])
    terminal.until("Run it? [y/N]:")
    terminal.type("\x03")
    # Ended by the signal itself, which a shell tells as the same code.
    assert terminal.end() == -signal.SIGINT == 128 - Exit.INTERRUPTED
    assert market.jobs == []


def test_after_yes_the_job_runs(market):
    market.script = Script(output=[("STDOUT", b"hello\n")])
    terminal = Terminal(market, [*RUN, "--", "a"])
    terminal.until("Run it? [y/N]:")
    terminal.type("y\n")
    assert terminal.end() == 0
    assert "hello" in terminal.text


def test_the_first_ctrl_c_asks_and_can_cancel(market):
    market.script = Script(ends=False, output=[("STDOUT", b"working\n")])
    terminal = Terminal(market, [*RUN, "-y", "--", "a"])
    terminal.until("working")
    terminal.type("\x03")
    terminal.until("[c/d]")
    assert not market.jobs[0].cancelled
    terminal.type("what\n")
    terminal.until("c or d?")
    terminal.type("c\n")
    assert terminal.end() == Exit.CANCELLED
    assert market.jobs[0].cancelled


@pytest.mark.parametrize("keys", ["d\n", "\x03"])
def test_after_the_first_ctrl_c_one_can_detach(market, keys):
    market.script = Script(ends=False, output=[("STDOUT", b"working\n")])
    terminal = Terminal(market, [*RUN, "-y", "--", "a"])
    terminal.until("working")
    terminal.type("\x03")
    terminal.until("[c/d]")
    terminal.type(keys)
    assert terminal.end() == Exit.INTERRUPTED
    assert f"usance logs -f {market.jobs[0].id}" in terminal.text
    assert not market.jobs[0].cancelled


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_terminal_a_signal_detaches(market, number):
    market.script = Script(ends=False, output=[("STDOUT", b"working\n")])
    process = _piped(market, [*RUN, "-y", "--", "a"])
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == Exit.INTERRUPTED
    assert b"goes on: usance logs -f" in err
    assert not market.jobs[0].cancelled


def test_when_the_reader_goes_away_the_job_goes_on(market):
    market.script = Script(ends=False, output=[("STDOUT", b"x" * 60_000) for _ in range(20)])
    process = _piped(market, [*RUN, "-y", "--", "a"])
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(10) == b"x" * 10
    process.stdout.close()
    assert process.wait(20) == Exit.PIPE_CLOSED
    assert b"nobody reads the output" in process.stderr.read()
    process.stderr.close()


def submitted(market: FakeMarket, monkeypatch: pytest.MonkeyPatch, command: str = "a") -> None:
    """A job, taken in without another process."""
    for name, value in market.environment.items():
        monkeypatch.setenv(name, value)
    assert execute(["run", "-y", "--detach", "--image", "i", "--budget", "5", "--", command]) == 0


def test_whose_output_nobody_reads_any_more_leaves_without_a_word(market, monkeypatch):
    market.script = Script(output=[("STDOUT", b"x" * 60_000) for _ in range(20)])
    submitted(market, monkeypatch)
    process = _piped(market, [sys.executable, "-m", "cli", "logs", "@last"])
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(10) == b"x" * 10
    process.stdout.close()
    assert process.wait(20) == Exit.PIPE_CLOSED
    assert process.stderr.read() == b""
    process.stderr.close()


def test_what_a_terminal_can_not_show_is_escaped(market, monkeypatch):
    submitted(market, monkeypatch, "日本")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(
        [sys.executable, "-m", "cli", "show", "@last"], env=environment, check=True, capture_output=True
    )
    assert rb"\u65e5\u672c" in shown.stdout


def test_help_waits_for_no_command_and_not_for_grpc():
    """The bar is 250 ms; what takes the time is what is imported."""
    code = (
        "import sys; from cli.main import execute; assert execute(['--help']) == 0;"
        "sys.exit(' '.join({'grpc', 'asyncio', 'google', 'cli.commands'} & set(sys.modules)) or 0)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "enroll-token  Make a token" in said.stdout


def _piped(market: FakeMarket, arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **market.environment},
    )
