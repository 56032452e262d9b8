"""A line between a client and a coordinator that breaks again and again, with an answer still on its way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_PIECE_BYTES = 65_536


@dataclass
class CuttingProxy:
    """Passes connections on to `target` and cuts each when so many bytes have come back over it.

    What came last is not passed on: the coordinator has answered, and nobody hears it.
    """

    target: tuple[str, int]
    # By the number of the connection, from 0; the last holds for all that follow.
    answer_bytes_max: tuple[int, ...]
    cuts: int = 0
    _connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        most = self.answer_bytes_max[min(self._connections, len(self.answer_bytes_max) - 1)]
        self._connections += 1
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        there = asyncio.create_task(_pass_on(reader, up_writer, None))
        back = asyncio.create_task(_pass_on(up_reader, writer, most))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            self.cuts += back.done() and back.result()
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
            writer.transport.abort()
            up_writer.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None) -> bool:
    """Until either end is closed, or there was more than may come; whether there was."""
    passed = 0
    try:
        while piece := await reader.read(_PIECE_BYTES):
            passed += len(piece)
            if most is not None and passed > most:
                return True
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass  # the other end has gone
    return False


@asynccontextmanager
async def cutting_proxy(
    target: str, answer_bytes_max: tuple[int, ...]
) -> AsyncIterator[tuple[str, CuttingProxy]]:
    """The address to connect to, and the proxy behind it."""
    host, _, port = target.rpartition(":")
    proxy = CuttingProxy(target=(host, int(port)), answer_bytes_max=answer_bytes_max)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", proxy
    finally:
        server.close()
        await server.wait_closed()
