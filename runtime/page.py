"""A program's own window: its figures for Prometheus, over HTTP, where whoever runs it wants them.

Nobody is asked who they are, so the address should be the machine's own. One page, read only; a reader who is
slow or sends too much is cut off.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)

PATH = "/metrics"
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HEAD_BYTES_MAX = 8_192
_READER_S = 5
# Readers at the same time; one Prometheus is one.
_READERS_MAX = 8


class Page:
    """Serves the text that `collect` gives, made anew for every reader."""

    def __init__(self, collect: Callable[[], str]) -> None:
        self._collect = collect
        self._readers = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Where it listens, now. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_HEAD_BYTES_MAX)
        found: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        log.info("figures at http://%s:%d%s", *found, PATH)
        return found

    async def try_start(self, host: str, port: int) -> None:
        """Where they can't be served, the program does its work all the same."""
        try:
            await self.start(host, port)
        except OSError as error:
            log.warning("figures can't be served at %s:%d: %s", host, port, error)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._readers += 1
        try:
            async with asyncio.timeout(_READER_S):
                writer.write(await self._answer(reader))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("a reader of figures went: %s", error)
        finally:
            self._readers -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        if self._readers > _READERS_MAX:
            return _answer("503 Service Unavailable", "too many readers\n")
        head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _answer("405 Method Not Allowed", "GET\n")
        if path != PATH.encode():
            return _answer("404 Not Found", f"{PATH}\n")
        page = _answer("200 OK", self._collect())
        return page if method == b"GET" else page.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def _answer(status: str, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {_CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
