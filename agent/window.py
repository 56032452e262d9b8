"""The agent's window in its own state folder: what it knows now, for `usance-agent status`.

A socket, and the folder is root's alone: whoever can connect may know.
"""

import asyncio
import json
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from agent.domain.figures import View

log = logging.getLogger(__name__)

_NAME = "agent.sock"
_WAIT_S = 5
_BYTES_MAX = 1 << 20


class Window:
    """Answers everybody who connects with what `show` gives, and hangs up."""

    def __init__(self, show: Callable[[], View]) -> None:
        self._show = show
        self._server: asyncio.Server | None = None

    async def start(self, state_dir: Path) -> None:
        """Raises OSError."""
        with suppress(FileNotFoundError):
            (state_dir / _NAME).unlink()
        folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # The name of a socket is short; the folder's may be long.
            self._server = await asyncio.start_unix_server(self._serve, f"/proc/self/fd/{folder}/{_NAME}")
        finally:
            os.close(folder)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_WAIT_S):
                writer.write(json.dumps(_shown(self._show())).encode())
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def ask(state_dir: Path) -> dict[str, object] | None:
    """What a running agent shows; None where there is none, or it says nothing."""
    folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_WAIT_S)
            connection.connect(f"/proc/self/fd/{folder}/{_NAME}")
            raw = b""
            while len(raw) < _BYTES_MAX and (more := connection.recv(65_536)):
                raw += more
    except OSError:
        return None
    finally:
        os.close(folder)
    with suppress(ValueError):
        shown = json.loads(raw)
        if isinstance(shown, dict):
            return shown
    return None


def _shown(view: View) -> dict[str, object]:
    return {
        "version": view.version,
        "connected": view.connected,
        "executor": view.executor,
        "gpus": [
            {
                "uuid": gpu.info.uuid,
                "model": gpu.info.model,
                "health": gpu.health.condition.value,
                "reason": gpu.health.reason,
                "attempt_id": gpu.job,
                "utilization_percent": gpu.sample.utilization_percent if gpu.sample else None,
                "memory_used_bytes": gpu.sample.memory_used_bytes if gpu.sample else None,
                "power_mw": gpu.sample.power_mw if gpu.sample else None,
                "temperature_c": gpu.sample.temperature_c if gpu.sample else None,
            }
            for gpu in view.gpus
        ],
        "jobs": [{"attempt_id": job.attempt_id, "run_ms": job.run_ms} for job in view.jobs],
    }
