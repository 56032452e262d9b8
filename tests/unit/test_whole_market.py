"""The market of real processes that tests and the demo use leaves none of them behind."""

import os
import signal
import subprocess

import pytest

from tests.support import market as markets
from tests.support.market import OPERATOR, WholeMarket


def test_a_command_whose_start_was_interrupted_is_ended(tmp_path, monkeypatch):
    """The interruption comes when the process is there and nobody has been told of it: no Popen, no pid."""
    market = WholeMarket(tmp_path / "market")
    market.folder.mkdir()
    market._tokens[OPERATOR] = "none"
    fork = vars(subprocess)["_fork_exec"]
    begun: list[int] = []

    def interrupted(*arguments):
        begun.append(fork(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "_fork_exec", interrupted)
    monkeypatch.setattr(markets, "program", lambda _: "sleep")
    with pytest.raises(KeyboardInterrupt):
        market.usance(OPERATOR, "20")
    monkeypatch.undo()
    (pid,) = begun
    try:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        market.stop()
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    assert not market.folder.exists()
