"""Values that differ a little from others."""

from typing import TypeVar

T = TypeVar("T")


def changed(value: T, **changes: object) -> T:
    """What `dataclasses.replace` gives, cheaper: each step of a job asks for it several times.

    For those whose `__init__` does no more than to take its arguments.
    """
    known = vars(value)
    if not changes.keys() <= known.keys():
        raise TypeError(f"{type(value).__name__} has no {', '.join(sorted(changes.keys() - known.keys()))}")
    made = object.__new__(type(value))
    vars(made).update(known, **changes)
    return made
