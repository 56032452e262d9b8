"""Holds GPUs to the power that their owner lets them draw, by the driver's own program."""

import asyncio
import logging
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Iterable
from contextlib import suppress

log = logging.getLogger(__name__)

PROGRAM = "nvidia-smi"
_WAIT_S = 60


async def cap(uuids: Iterable[str], watts: int) -> None:
    """One after the other. What the driver refuses is logged: the GPU is sold all the same."""
    for uuid in uuids:
        why = await _cap(uuid, watts)
        if why:
            log.warning("GPU %s is not held to %d W: %s", uuid, watts, why)
        else:
            log.info("GPU %s is held to %d W", uuid, watts)


async def _cap(uuid: str, watts: int) -> str:
    argv = (PROGRAM, "-i", uuid, "-pl", str(watts))
    try:
        process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    except OSError as error:
        return f"{PROGRAM}: {error.strerror}"
    try:
        async with asyncio.timeout(_WAIT_S):
            told, _ = await process.communicate()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        return "the driver does not answer"
    return "" if process.returncode == 0 else told.decode(errors="replace").strip().replace("\n", " ")
