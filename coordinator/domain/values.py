"""Values that differ a little from others."""

from typing import TypeVar

T = TypeVar("T")


def changed(value: T, **changes: object) -> T:
    """What `dataclasses.replace` gives, at half the price: beats and usage ask for it all the time."""
    return type(value)(**(vars(value) | changes))
