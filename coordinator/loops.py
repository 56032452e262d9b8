"""What the coordinator does without being asked: each loop is one pass, again and again."""

import logging
from collections.abc import Awaitable, Callable

_LOG = logging.getLogger(__name__)


async def repeat(
    name: str, one_pass: Callable[[], Awaitable[object]], pause: Callable[[], Awaitable[object]]
) -> None:
    """A pass that fails is logged and tried again: what it would have done is still to be done."""
    while True:
        try:
            await one_pass()
        except Exception:  # noqa: BLE001 - a loop's top
            _LOG.exception("a pass of %s failed; it will be tried again", name)
        await pause()
