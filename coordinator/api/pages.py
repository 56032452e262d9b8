"""Lists in pieces that fit into a message."""

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

from runtime.channel import MESSAGE_BYTES_MAX

M = TypeVar("M", bound=Message)

# What a page may come to, with room for what stands around it. No single item is larger than the rest of a
# message: the contract bounds each.
PAGE_BYTES_MAX = MESSAGE_BYTES_MAX // 2
# Tag and length of an item in a list.
AROUND_BYTES = 8


def fill(messages: Iterable[M], room_bytes: int = PAGE_BYTES_MAX) -> list[M]:
    """The first of them, as many as fit; at least one, if there is one."""
    page: list[M] = []
    for message in messages:
        room_bytes -= message.ByteSize() + AROUND_BYTES
        if page and room_bytes < 0:
            break
        page.append(message)
    return page
