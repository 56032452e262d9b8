"""A line between agents and their coordinator that a test can cut: nothing passes, and nobody is told."""

import asyncio
import socket
import threading
from contextlib import suppress

_PIECE_BYTES = 65_536


class Line:
    """Connections to `address` reach `target`. What is sent while it is cut arrives late, as TCP has it.

    `target` is HOST:PORT or a socket's path. Who hands in a socket that listens has chosen the address.
    """

    def __init__(self, target: str, listening: socket.socket | None = None) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._whole = asyncio.Event()
        self._whole.set()
        self.cuts = 0
        # So often something came from those who connect.
        self.pieces_up = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="line")
        self._thread.start()
        if listening is None:
            listening = socket.create_server(("127.0.0.1", 0))
        starting = asyncio.start_server(self._join, sock=listening)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self, duration_s: float) -> None:
        """From now on, for so long."""
        self.cuts += 1
        self._loop.call_soon_threadsafe(self._whole.clear)
        self._loop.call_soon_threadsafe(self._loop.call_later, duration_s, self._whole.set)

    def cut_off(self) -> None:
        """Until it is mended."""
        self.cuts += 1
        self._loop.call_soon_threadsafe(self._whole.clear)

    def drop(self) -> None:
        """Every connection that there is breaks; the next ones are as good as new."""
        self._loop.call_soon_threadsafe(self._drop)

    def _drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._loop.call_soon_threadsafe(self._whole.set)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        pumps = asyncio.all_tasks() - {asyncio.current_task()}
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _join(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        try:
            far_in, far_out = await self._reach()
        except OSError:
            near_out.close()
            return
        ends = {near_out, far_out}
        self._writers |= ends
        await asyncio.gather(self._pump(near_in, far_out, up=1), self._pump(far_in, near_out, up=0))
        self._writers -= ends

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._target.startswith("/"):
            return await asyncio.open_unix_connection(self._target)
        host, _, port = self._target.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: int) -> None:
        try:
            with suppress(OSError):
                while piece := await source.read(_PIECE_BYTES):
                    self.pieces_up += up
                    await self._whole.wait()
                    sink.write(piece)
                    await sink.drain()
        finally:
            sink.close()
