"""The world around an engine that has a network namespace to itself: a LAN, a metadata service, the internet.

One more network namespace, connected with the engine's, has the addresses of all three, and answers on every
one of them. Nothing leaves the machine, and all of it goes with the two processes that hold the namespaces.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.rig.dockerd import Engine

# The engine's host in its LAN, and its neighbour, which is its router, too.
HOST = "10.77.0.1"
NEIGHBOUR = "10.77.0.2"
METADATA = "169.254.169.254"
# Public addresses; here they are ours.
SITE, OTHER_SITE = "93.184.215.14", "93.184.215.15"
PORT, OTHER_PORT = 8_099, 8_100
DNS_PORT = 53

_SERVER = f"""
import ctypes, selectors, socket, sys
if sys.argv[1] == "world":
    ctypes.CDLL(None).unshare(0x40000000)
    print("ready", flush=True)
    sys.stdin.readline()
chosen = selectors.DefaultSelector()
for port in ({PORT}, {OTHER_PORT}):
    server = socket.create_server(("0.0.0.0", port), reuse_port=True)
    chosen.register(server, selectors.EVENT_READ, None)
names = socket.socket(type=socket.SOCK_DGRAM)
# To one address, because an answer must come from where it was asked.
names.bind(("{SITE}" if sys.argv[1] == "world" else "127.0.0.1", {DNS_PORT}))
chosen.register(names, selectors.EVENT_READ, names)
print("listening", flush=True)
while True:
    for key, _ in chosen.select():
        if key.data is None:
            key.fileobj.accept()[0].close()
        else:
            query, sender = names.recvfrom(512)
            question = query[12:query.index(b"\\0", 12) + 5]
            is_a = question.endswith(b"\\0\\x01\\0\\x01")
            answer = b"\\xc0\\x0c\\0\\x01\\0\\x01\\0\\0\\0\\x3c\\0\\x04" + socket.inet_aton("{SITE}")
            head = query[:2] + b"\\x81\\x80\\0\\x01" + (b"\\0\\x01" if is_a else b"\\0\\0") + bytes(4)
            names.sendto(head + question + (answer if is_a else b""), sender)
"""


@dataclass(frozen=True, kw_only=True)
class World:
    """What is around the engine's host."""

    pid: int

    def in_network(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` out there."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *argv]


@contextmanager
def world_around(engine: Engine) -> Iterator[World]:
    """Answers on HOST inside the engine's namespace, and on all other addresses outside it."""
    children: list[subprocess.Popen[str]] = []
    try:
        world = _start(["world"], children)
        _read(world, "ready")
        for arguments in (
            f"link add lan type veth peer name lan netns {world.pid}",
            f"address add {HOST}/24 dev lan",
            "link set lan up",
            f"route add default via {NEIGHBOUR}",
        ):
            _run(engine.in_network(["ip", *arguments.split()]))
        around = World(pid=world.pid)
        for arguments in (
            "link set lo up",
            f"address add {NEIGHBOUR}/24 dev lan",
            *(f"address add {address}/32 dev lo" for address in (METADATA, SITE, OTHER_SITE)),
            "link set lan up",
            # Somebody in the LAN who knows where the jobs are.
            f"route add 10.0.0.0/8 via {HOST}",
        ):
            _run(around.in_network(["ip", *arguments.split()]))
        assert world.stdin is not None
        world.stdin.write("go\n")
        world.stdin.flush()
        _read(world, "listening")
        _read(_start(["host"], children, engine.in_network([])), "listening")
        yield around
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _start(
    arguments: list[str], children: list[subprocess.Popen[str]], inside: list[str] | None = None
) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [*(inside or ()), "setpriv", "--pdeathsig", "KILL", sys.executable, "-I", "-c", _SERVER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    children.append(child)
    return child


def _read(child: subprocess.Popen[str], word: str) -> None:
    assert child.stdout is not None
    assert child.stdout.readline().strip() == word


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True)
