"""Speaks with the engine about images in registries, over its socket: its client can't be cut off.

Neither does it go without credentials: it would use those of whoever runs the agent, for strangers. Here are
only those that the job's buyer gave for this image.
"""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from urllib.parse import quote, urlencode

from agent.domain.attempt import EndReason
from agent.domain.confidential import Login
from agent.domain.pull import PullEvent, event_of, split_reference, why_no_image
from agent.executor.ports import StartError

# A pull that says nothing for so long has stalled. Unpacking a large layer is told of all the while.
SILENCE_S = 60
_LINE_BYTES_MAX = 1 << 20


class StalledError(StartError):
    """Nothing came for too long. It may well go on when it is asked again."""

    def __init__(self, image: str) -> None:
        super().__init__(EndReason.START_FAILED, f"{image}: the pull stalled for {SILENCE_S} s")


async def digest_of(socket_path: str, image: str, login: Login | None = None) -> str:
    """What the image's registry says its tag means. Raises StartError."""
    path = f"/distribution/{quote(image)}/json"
    lines = [line async for line in _lines(socket_path, "GET", path, image, login)]
    try:
        return str(json.loads(b"".join(lines))["Descriptor"]["digest"])
    except (ValueError, KeyError, TypeError) as error:
        raise StartError(EndReason.START_FAILED, f"{image}: the engine can't name its digest") from error


async def pull(socket_path: str, image: str, login: Login | None = None) -> AsyncGenerator[PullEvent, None]:
    """The engine's report, line by line. Leaving it cancels the pull. Raises StartError."""
    repository, tag = split_reference(image)
    query = urlencode({"fromImage": repository, "tag": tag})
    async for line in _lines(socket_path, "POST", f"/images/create?{query}", image, login):
        try:
            event = event_of(json.loads(line))
        except ValueError as error:
            raise _broken_off(image, error) from error
        if event.error:
            raise StartError(why_no_image(event.error), f"{image}: {event.error}")
        yield event


async def _lines(
    socket_path: str, method: str, path: str, image: str, login: Login | None
) -> AsyncGenerator[bytes, None]:
    try:
        reader, writer = await asyncio.open_unix_connection(socket_path, limit=_LINE_BYTES_MAX)
    except OSError as error:
        raise StartError(EndReason.START_FAILED, f"the engine does not answer: {error}") from error
    try:
        head = f"{method} {path} HTTP/1.0\r\nContent-Length: 0\r\n{_credential(login)}\r\n"
        writer.write(head.encode())
        status = int((await _line(reader)).split(b" ", 2)[1])
        while await _line(reader) not in (b"\r\n", b""):
            pass
        if 300 <= status < 400:  # the engine tidies up a path that is none
            raise StartError(EndReason.IMAGE_UNAVAILABLE, f"{image} is no name of an image")
        while line := await _line(reader):
            if status != 200:
                message = _message(line)
                raise StartError(why_no_image(message), f"{image}: {message}")
            yield line
    except TimeoutError as error:
        raise StalledError(image) from error
    except (OSError, ValueError, IndexError) as error:
        raise _broken_off(image, error) from error
    finally:
        writer.close()


def _credential(login: Login | None) -> str:
    """The header in which the engine takes it, for this call alone."""
    if login is None:
        return ""
    fields = json.dumps({"username": login.username, "password": login.password})
    return f"X-Registry-Auth: {base64.urlsafe_b64encode(fields.encode()).decode()}\r\n"


def _broken_off(image: str, error: Exception) -> StartError:
    return StartError(EndReason.START_FAILED, f"{image}: the engine broke off the pull: {error}")


def _message(line: bytes) -> str:
    fields = json.loads(line)
    return str(fields.get("message", fields)) if isinstance(fields, dict) else str(fields)


async def _line(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(SILENCE_S):
        return await reader.readline()
