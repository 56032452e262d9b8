"""Connections that have shown neither a token nor a certificate: at most so many from one address.

gRPC tells us of a connection only when it asks for something, so those that ask for nothing are found where
the system has them: among our own descriptors. One that is too many is shut down, as if its peer had done it.
"""

import ipaddress
import logging
import os
import socket
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from coordinator.settings import split_address

_LOG = logging.getLogger(__name__)
LOOK_EVERY_MS = 2_000
_OWN = Path("/proc/self/fd")
Peer = tuple[str, int]


class Strangers:
    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[Peer] = set()

    def shown(self, peer: str) -> None:
        """Whoever gRPC calls so has a good token or certificate; until its connection ends."""
        found = peer_of(peer)
        if found is not None:
            self._known.add(found)

    def look(self, ports: Collection[int]) -> int:
        """Shut down what is too many on these ports of ours; how many that were.

        To look at thousands takes tens of milliseconds, so it is done only where there may be too many.
        """
        count = _descriptors()
        if count - len(self._known) <= self._most and len(self._known) <= 2 * count:
            return 0
        connected, strangers, cut = set[Peer](), Counter[str](), Counter[str]()
        for connection, peer in _connections(ports):
            connected.add(peer)
            strangers[peer[0]] += peer not in self._known
            if peer not in self._known and strangers[peer[0]] > self._most:
                cut[peer[0]] += 1
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        # What was shown since belongs to connections that we may not have seen.
        self._known &= connected
        for address, number in cut.items():
            _LOG.warning("%s: %d connections that had shown nothing were too many", address, number)
        return cut.total()


def _descriptors() -> int:
    """How many we have. Kernels from 6.2 on say so; with others they are counted, 20 ms for 10,000."""
    return _OWN.stat().st_size or sum(1 for _ in _OWN.iterdir())


def _connections(ports: Collection[int]) -> Iterator[tuple[socket.socket, Peer]]:
    """A descriptor of our own for each: what it stands for can't become another while we look."""
    for path in list(_OWN.iterdir()):
        with suppress(OSError), _own(int(path.name)) as connection:
            try:
                if connection.getsockname()[1] in ports:
                    host, port = connection.getpeername()[:2]
                    yield connection, (_plain(host), port)
            except (OSError, IndexError, TypeError, ValueError):
                pass  # it listens, is no connection, or has just ended


def _own(descriptor: int) -> socket.socket:
    """Raises OSError where it is none of a socket."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def peer_of(name: str) -> Peer | None:
    """Of gRPC's name for the other side, "ipv4:192.0.2.1:4711"."""
    kind, _, rest = name.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return None
    host, port = split_address("peer", unquote(rest))
    return _plain(host.strip("[]")), port


def _plain(host: str) -> str:
    """The same for an address of IPv4 that came in by IPv6."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
