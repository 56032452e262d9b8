"""Addresses of this machine that answer inside another network namespace, too.

A socket stays in the namespace where it was made, whoever uses it.
"""

import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000
_READ_BYTES = 65_536


@contextmanager
def answered_inside(namespace: Path, places: Mapping[str, str]) -> Iterator[None]:
    """What is said to an address in there is said to the one that it stands for out here."""
    listening = [(listening_inside(namespace, inside), _parts(outside)) for inside, outside in places.items()]
    ends: list[socket.socket] = [server for server, _ in listening]
    threads = [threading.Thread(target=_serve, args=(*pair, ends), daemon=True) for pair in listening]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for end in ends:
            # Whoever waits on it wakes up.
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for end in ends:
            end.close()


def listening_inside(namespace: Path, address: str) -> socket.socket:
    """A server's socket that belongs to that namespace."""
    return made_inside(namespace, lambda: socket.create_server(_parts(address)))


def made_inside(namespace: Path, make: Callable[[], _T]) -> _T:
    """What is made by a thread that has gone into that network namespace, and is lost to it."""
    made: list[_T] = []

    def work() -> None:
        descriptor = os.open(namespace, os.O_RDONLY)
        try:
            assert ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) == 0
        finally:
            os.close(descriptor)
        made.append(make())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return made[0]


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _serve(server: socket.socket, target: tuple[str, int], ends: list[socket.socket]) -> None:
    pumps: list[threading.Thread] = []
    while True:
        try:
            near, _ = server.accept()
        except OSError:
            break
        try:
            far = socket.create_connection(target)
        except OSError:
            near.close()
            continue
        ends += [near, far]
        pumps += [
            threading.Thread(target=_pump, args=pair, daemon=True) for pair in ((near, far), (far, near))
        ]
        for pump in pumps[-2:]:
            pump.start()
    for pump in pumps:
        pump.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_READ_BYTES):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
