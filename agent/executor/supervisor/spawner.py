"""Forks supervisors for one agent, each in a moment: Python and all that they need are loaded here already.

What it is asked for comes through a socket that nobody but its agent holds the other end of: the folder of a
run, and with it the pipe on which the supervisor tells its news. It keeps nothing, answers nothing, has one
thread, and goes when its agent goes; its supervisors stay.
"""

import gc
import os
import signal
import socket
import sys

import agent.executor.supervisor.container  # noqa: F401  loaded for the supervisors of containers
from agent.executor.supervisor import process
from agent.executor.supervisor.main import main as supervise

REQUEST_BYTES_MAX = 8_192


def main() -> None:
    """Serve the agent at the other end of our standard input."""
    agent = socket.socket(fileno=os.dup(0))
    _be_ready()
    while True:
        request, news, _, _ = socket.recv_fds(agent, REQUEST_BYTES_MAX, 1)
        if not request:
            return
        if os.fork() == 0:
            os.close(agent.fileno())
            _become_supervisor(os.fsdecode(request), news[0])
        for descriptor in news:
            os.close(descriptor)


def _be_ready() -> None:
    os.chdir("/")
    # What is made without a mode of its own is for us alone.
    os.umask(0o077)
    _name("usance-spawner")
    process.prepare()
    # Nobody waits for supervisors here, and none is to stay as a zombie.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A collection that visits what is shared would copy it into every supervisor.
    gc.collect()
    gc.freeze()


def _become_supervisor(folder: str, news: int) -> None:
    """Never returns."""
    code = 1
    try:
        os.setsid()
        _name("usance-run")
        # Not the socket to the agent: nothing that the spawner stands on is ours.
        os.dup2(1, 0)
        supervise(folder, news)
        code = 0
    except BaseException:  # noqa: BLE001  the top of a process
        _complain(f"{folder}/supervisor.log")
    finally:
        os._exit(code)


def _complain(log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(file, 2)
    sys.excepthook(*sys.exc_info())
    sys.stderr.flush()


def _name(name: str) -> None:
    """What `ps` and `top` call us."""
    file = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    os.write(file, name.encode())
    os.close(file)
