"""What a limit is: the form of the rows of `limits`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from coordinator.domain.shelf import Ask, Request, Shelf


class Limit(IntEnum):
    """Why a host is passed over. A host counts at the first that it fails, in this order."""

    AWAY = 1
    MODEL = 2
    VRAM = 3
    COMPUTE_CAPABILITY = 4
    COUNT = 5
    FAILED_BEFORE = 6
    ISOLATION = 7
    TRUST = 8
    IMAGE = 9
    NETWORK = 10
    REGION = 11
    DRIVER = 12
    CUDA = 13
    LABELS = 14
    RELIABILITY = 15
    MEMORY = 16
    CPU = 17
    PRICE = 18
    RUN_TIME = 19
    BUDGET = 20
    BUSY = 21


@dataclass(frozen=True, kw_only=True)
class Row:
    """One limit. `remedy` says what of it the easiest of the shelves that fail would take.

    `asked` looks at nothing but whether fields of the ask are empty.
    """

    limit: Limit
    asked: Callable[[Ask], object]
    met: Callable[[Ask, Shelf], bool]
    words: Callable[[Request], str]
    remedy: Callable[[Request, Sequence[Shelf]], str] = lambda _request, _shelves: ""
    # Which field of the ask decides, together with what never changes of a shelf; None where something that
    # changes does. `loosen` takes a value to a near one that shuts out no more, so that there are few.
    place: int | None = None
    loosen: Callable[[Any], int] | None = None
    # A quick test that shuts out no more than `met`, where that needs more than the field.
    roughly: Callable[[Ask, Shelf], bool] | None = None

    def with_value(self, ask: Ask, value: object) -> Ask:
        """The ask with another value of the field that decides."""
        assert self.place is not None
        change: dict[str, Any] = {Ask._fields[self.place]: value}
        return ask._replace(**change)
