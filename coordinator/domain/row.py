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
    SIMULATED = 3
    VRAM = 4
    COMPUTE_CAPABILITY = 5
    COUNT = 6
    FAILED_BEFORE = 7
    ISOLATION = 8
    TRUST = 9
    IMAGE = 10
    IMAGE_POLICY = 11
    NETWORK = 12
    REGION = 13
    DRIVER = 14
    CUDA = 15
    LABELS = 16
    RELIABILITY = 17
    MEMORY = 18
    CPU = 19
    PRICE = 20
    RUN_TIME = 21
    HOURS = 22
    BUDGET = 23
    BUSY = 24


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
    # Whom it can shut out at all, by what never changes of a shelf; None for everybody.
    concerns: Callable[[Shelf], bool] | None = None
    # A quick test that shuts out no more than `met`, where that needs more than the field.
    roughly: Callable[[Ask, Shelf], bool] | None = None

    def with_value(self, ask: Ask, value: object) -> Ask:
        """The ask with another value of the field that decides."""
        assert self.place is not None
        change: dict[str, Any] = {Ask._fields[self.place]: value}
        return ask._replace(**change)
