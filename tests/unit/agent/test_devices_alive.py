"""What has ended is not looked at as if it ran."""

import os
import subprocess
import sys

from agent.executor.devices import is_alive
from tests.rig.parts import wait_until


def test_a_process_is_alive_until_it_ends_and_not_while_it_waits_to_be_reaped():
    assert is_alive(os.getpid())
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", ""]) as child:
        wait_until(lambda: not is_alive(child.pid), "it has ended, and nobody reaped it")
        assert child.returncode is None
    assert not is_alive(child.pid)
