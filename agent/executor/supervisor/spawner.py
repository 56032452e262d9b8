"""Forks supervisors for one agent, ahead: Python and all that they need are loaded here already.

What it is asked for comes through a socket that nobody but its agent holds the other end of: the folder of a
run, and with it the pipe on which the supervisor tells its news. One spare supervisor always waits there and
takes the next request itself. The spawner keeps nothing, answers nothing, has one thread, and goes when its
agent goes; supervisors stay.
"""

import gc
import json
import os
import select
import signal
import socket
import sys

import agent.executor.supervisor.container  # noqa: F401  loaded for the supervisors of containers
from agent.executor.supervisor import process
from agent.executor.supervisor.main import main as supervise
from agent.executor.supervisor.target import Ended, Started

REQUEST_BYTES_MAX = 8_192


def main() -> None:
    """Serve the agent at the other end of our standard input."""
    requests = socket.socket(fileno=os.dup(0))
    _be_ready()
    while True:
        taken, its_taken = os.pipe()
        if os.fork() == 0:
            os.close(taken)
            _be_spare(requests, its_taken)
        os.close(its_taken)
        word = os.read(taken, 1)
        os.close(taken)
        if not word:
            return  # the agent is gone; or the spare was killed, and the agent will find us gone


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


def _be_spare(requests: socket.socket, taken: int) -> None:
    """Wait for a run and be its supervisor. Never returns."""
    code, folder = 1, ""
    try:
        os.setsid()
        _name("usance-spare")
        # Not the socket to the agent.
        os.dup2(1, 0)
        _rehearse()
        request, news, _, _ = socket.recv_fds(requests, REQUEST_BYTES_MAX, 1)
        # Nothing that the spawner stands on is ours from here on.
        os.close(requests.fileno())
        if request:
            folder = os.fsdecode(request)
            os.write(taken, b"!")
            os.close(taken)
            _name("usance-run")
            supervise(folder, news[0])
        code = 0
    except BaseException:  # noqa: BLE001  the top of a process
        if folder:
            _complain(f"{folder}/supervisor.log")
    finally:
        os._exit(code)


def _rehearse() -> None:
    """Memory is copied when it is first touched after a fork: what every run touches, while nobody waits."""
    json.loads(json.dumps({"text": ["a", 1], "none": None}))
    select.poll().register(0)
    Started("", 0)
    Ended(0, 0)


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
