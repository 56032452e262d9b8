"""A machine in a network namespace of its own, and its one line out, which a test can cut.

Nothing of it is in our own network: the line's other end is in a second namespace, in which sockets of ours
listen. Both go with the processes that hold them.
"""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.rig.parts import find_program
from tests.support.through import answered_inside

# Of the far end of the line, where the coordinator is found.
FAR = "10.78.0.1"
_NEAR = "10.78.0.2"
_HOLD = "ip link set lo up && echo up && read wait"


class Apart:
    """Where the machine lives, and its line."""

    def __init__(self, here: int, beyond: int) -> None:
        self._here = here
        self._beyond = beyond

    def inside(self, argv: Sequence[str] = ()) -> list[str]:
        """The command that runs `argv` on the machine."""
        return ["nsenter", f"--net=/proc/{self._here}/ns/net", *argv]

    def cut(self) -> None:
        """At the far end: the machine's own addresses and routes stay, and nothing passes."""
        _ip(self._beyond, "link set line down")

    def mend(self) -> None:
        _ip(self._beyond, "link set line up")


@contextmanager
def apart(places: Mapping[str, str]) -> Iterator[Apart]:
    """On the machine, each address of the far end reaches one of ours."""
    with ExitStack() as stack:
        here, beyond = (stack.enter_context(_namespace()) for _ in range(2))
        _ip(here, f"link add line type veth peer name line netns {beyond}")
        for pid, address in ((here, _NEAR), (beyond, FAR)):
            _ip(pid, f"address add {address}/30 dev line")
            _ip(pid, "link set line up")
        stack.enter_context(answered_inside(Path(f"/proc/{beyond}/ns/net"), places))
        yield Apart(here, beyond)


@contextmanager
def _namespace() -> Iterator[int]:
    """The process that holds it."""
    for name in ("unshare", "setpriv"):
        find_program(name, how="apt-get install util-linux")
    holder = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", _HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "up\n"
        yield holder.pid
    finally:
        holder.kill()
        holder.communicate()


def _ip(pid: int, arguments: str) -> None:
    argv = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", *arguments.split()]
    subprocess.run(argv, check=True, capture_output=True)
