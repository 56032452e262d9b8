"""A program of its own: tries, from a job's bridge, to reach what a job must not reach.

It makes a network namespace, which ends with it, and says so; whoever started it connects that with the
bridge. What the packet filter refuses is told by the kernel at once and in its own word (EHOSTUNREACH by the
ICMP message for it); a closed port says another, and one that nobody has says this word too late.
"""

import ctypes
import errno
import json
import os
import selectors
import socket
import subprocess
import sys

READY = "ready"
INTERFACE = "probe"
REFUSED = "refused"
REACHED = "reached"
SILENT = "no answer"
_CLONE_NEWNET = 0x40000000
# Below the three seconds in which the kernel gives up on a neighbour that does not exist.
_WAIT_S = 2.0
_PORT = 80


def main() -> None:
    order = json.loads(sys.argv[1])
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        sys.exit(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    print(READY, flush=True)  # noqa: T201
    sys.stdin.readline()
    # Another one each time, so that it was not refused too often lately.
    first = os.getpid() % len(order["addresses"])
    addresses = order["addresses"][first:] + order["addresses"][:first]
    senders = addresses[: len(order["targets"])]
    for arguments in (
        *(["address", "add", address, "dev", INTERFACE] for address in senders),
        ["link", "set", INTERFACE, "up"],
        ["route", "add", "default", "via", order["gateway"]],
    ):
        subprocess.run(["ip", *arguments], check=True)
    paths = zip((address.split("/")[0] for address in senders), order["targets"], strict=True)
    print(json.dumps(_answers(dict(paths))))  # noqa: T201


def _answers(paths: dict[str, str]) -> dict[str, str]:
    """By target, from what sender to which target was given; all at the same time."""
    answers = dict.fromkeys(paths.values(), SILENT)
    with selectors.DefaultSelector() as selector:
        for sender, target in paths.items():
            connection = socket.socket()
            connection.settimeout(0)
            connection.bind((sender, 0))
            code = connection.connect_ex((target, _PORT))
            if code == errno.EINPROGRESS:
                selector.register(connection, selectors.EVENT_WRITE, target)
            else:
                answers[target] = _answer(code)
        while ready := selector.select(_WAIT_S) if selector.get_map() else []:
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                answers[key.data] = _answer(key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                selector.unregister(key.fileobj)
    return answers


def _answer(code: int) -> str:
    if code == errno.EHOSTUNREACH:
        return REFUSED
    # Somebody is there: it took the call, or had nobody listening.
    return REACHED if code in (0, errno.ECONNREFUSED) else os.strerror(code)


if __name__ == "__main__":
    main()
