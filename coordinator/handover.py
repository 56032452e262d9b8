"""From one coordinator to the next while agents and people are being served.

The next one listens beside the one that serves, and asks it to go, over a socket in the data folder:

    next                            serving
    listens for agents
    `relieve`             ->        closes the agents' door; agents open their next stream, which waits at
                                    the next one's door, and go on beating on the old one
                          <-        `come`, when they have all had the time for it
    listens for people
    `here`                ->        closes the people's door, commits what was begun, leaves the seat
    takes the seat, and answers all who wait

Whichever of the two dies, the other notices, by the socket or by the seat. Until the seat is left the one
that serves can still go on; after that the next one is a coordinator that starts.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SOCKET_NAME = "coordinator.sock"
RELIEVE, COME, HERE = "relieve", "come", "here"


class Peer:
    """The other of the two."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, word: str) -> None:
        """Whether it was heard, the answer says."""
        with suppress(ConnectionError):
            self._writer.write(f"{word}\n".encode())
            await self._writer.drain()

    async def hears(self, word: str, limit_ms: int | None = None) -> bool:
        """Wait until the other says so; False: it is gone, or says nothing for so long."""
        try:
            async with asyncio.timeout(None if limit_ms is None else limit_ms / 1_000):
                return await self._reader.readline() == f"{word}\n".encode()
        except (ConnectionError, TimeoutError):
            return False

    async def stays(self, duration_ms: int) -> bool:
        """Wait for so long; False, and at once: it is gone."""
        try:
            async with asyncio.timeout(duration_ms / 1_000):
                await self._reader.read(1)
        except TimeoutError:
            return True
        except ConnectionError:
            pass
        return False

    def close(self) -> None:
        self._writer.close()


async def find(data_dir: Path) -> Peer | None:
    """The one that serves, if it does so from this folder of this machine."""
    with _address(data_dir) as address, socket.socket(socket.AF_UNIX) as made:
        try:
            made.connect(address)
        except (FileNotFoundError, ConnectionError):
            return None
        return Peer(*await asyncio.open_unix_connection(sock=made.dup()))


async def answer(data_dir: Path, on_next: Callable[[Peer], None]) -> asyncio.Server:
    """Wait for the next one; to be called by the one that has the seat."""

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        if await peer.hears(RELIEVE):
            on_next(peer)
        else:
            peer.close()

    with _address(data_dir) as address:
        (data_dir / SOCKET_NAME).unlink(missing_ok=True)
        made = socket.socket(socket.AF_UNIX)
        made.bind(address)
    return await asyncio.start_unix_server(met, sock=made)


@contextmanager
def _address(data_dir: Path) -> Iterator[str]:
    """A unix socket's path may have 107 bytes, a data folder's more."""
    folder = os.open(data_dir, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_NAME}"
    finally:
        os.close(folder)
