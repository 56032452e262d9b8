"""Has the engine pull an image, over its socket: the client can neither be cut off nor grow impatient."""

import asyncio
import json
from collections.abc import AsyncGenerator
from urllib.parse import urlencode

from agent.domain.attempt import EndReason
from agent.domain.pull import PullEvent, event_of, split_reference, why_no_image
from agent.executor.ports import StartError

# A pull that says nothing for so long has stalled. Unpacking a large layer is told of all the while.
SILENCE_S = 120
_LINE_BYTES_MAX = 1 << 20


async def pull(socket_path: str, image: str) -> AsyncGenerator[PullEvent, None]:
    """The engine's report, line by line. Leaving it cancels the pull. Raises StartError."""
    repository, tag = split_reference(image)
    try:
        reader, writer = await asyncio.open_unix_connection(socket_path, limit=_LINE_BYTES_MAX)
    except OSError as error:
        raise StartError(EndReason.START_FAILED, f"the engine does not answer: {error}") from error
    try:
        query = urlencode({"fromImage": repository, "tag": tag})
        writer.write(f"POST /images/create?{query} HTTP/1.0\r\nContent-Length: 0\r\n\r\n".encode())
        status = int((await _line(reader)).split(b" ", 2)[1])
        while await _line(reader) not in (b"\r\n", b""):
            pass
        while line := await _line(reader):
            fields = json.loads(line)
            if status != 200:
                message = str(fields.get("message", fields))
                raise StartError(why_no_image(message), f"{image}: {message}")
            event = event_of(fields)
            if event.error:
                raise StartError(why_no_image(event.error), f"{image}: {event.error}")
            yield event
    except TimeoutError as error:
        raise StartError(EndReason.START_FAILED, f"{image}: the pull stalled for {SILENCE_S} s") from error
    except (OSError, ValueError, IndexError) as error:
        raise StartError(
            EndReason.START_FAILED, f"{image}: the engine broke off the pull: {error}"
        ) from error
    finally:
        writer.close()


async def _line(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(SILENCE_S):
        return await reader.readline()
