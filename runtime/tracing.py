"""Traces: where time goes from program to program, for whoever wants to see it. Off, and free, unless told.

What is part of what is told in W3C's form, `traceparent`: in the metadata of an RPC, and in what is kept of a
job. Where tracing is off nothing of OpenTelemetry is imported, and a span is a constant.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

KEY = "traceparent"
# For the command line; the other programs have a setting.
ENVIRONMENT = "USANCE_TRACES"
_PLACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_NOWHERE = nullcontext("")


class TracesError(Exception):
    """Traces were asked for and can't be had; the message says what would help."""


class Tracer(Protocol):
    """`place` is a traceparent; "" is none."""

    @property
    def is_on(self) -> bool: ...

    def span(
        self, name: str, told: Mapping[str, str], *, place: str = "", is_server: bool = False
    ) -> AbstractContextManager[str]:
        """What is done in the block, as a part of what is at `place`; gives its own place."""
        ...

    def past(self, name: str, told: Mapping[str, str], start_ms: int, end_ms: int, *, place: str) -> None:
        """What was done between two moments of the wall clock."""
        ...

    def close(self) -> None:
        """What was gathered is sent."""
        ...


class Off:
    """Nobody asks."""

    is_on = False

    def span(
        self,
        name: str,  # noqa: ARG002
        told: Mapping[str, str],  # noqa: ARG002
        *,
        place: str = "",  # noqa: ARG002
        is_server: bool = False,  # noqa: ARG002
    ) -> AbstractContextManager[str]:
        return _NOWHERE

    def past(self, name: str, told: Mapping[str, str], start_ms: int, end_ms: int, *, place: str) -> None:
        pass

    def close(self) -> None:
        pass


OFF = Off()


def open_tracer(service: str, endpoint: str) -> Tracer:
    """One that sends to an OTLP endpoint, "http://127.0.0.1:4317"; without one none. Raises TracesError."""
    if not endpoint:
        return OFF
    try:
        from runtime.otel import sending
    except ModuleNotFoundError as error:
        raise TracesError(f"traces need {error.name}: pip install 'usance[otel]'") from error
    return sending(service, endpoint)


def place_in(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """What the other side says that its RPC is a part of, if it says so as it should."""
    for key, value in metadata or ():
        if key == KEY and isinstance(value, str) and _PLACE.fullmatch(value):
            return value
    return ""
