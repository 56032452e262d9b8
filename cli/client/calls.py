"""Calls that survive a bad line: every RPC of the market may be repeated, so we repeat it.

A unary call is tried again with the same request, hence the same request_id. A stream is opened again
from the last item that was taken in.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio

from cli.client.credential import Credential
from cli.client.errors import explain
from cli.errors import Refused, UsanceError
from cli.model import RefusalCode
from runtime.clock import Clock
from runtime.ids import new_id, new_uuid
from runtime.tracing import KEY, OFF, Tracer

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")

REQUEST_ID_KEY = "x-request-id"
TRY_S = 10
BACK_OFF_MS_FIRST = 200
BACK_OFF_MS_MAX = 5_000


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to go on asking a coordinator that does not answer."""

    call_ms: int = 20_000
    # A stream lives as long as a job: it outlasts a restart of the coordinator, or of a router.
    stream_ms: int = 600_000


class Caller:
    """Makes calls with the caller's credential, if any; `on_trouble` is told why a call is tried again."""

    def __init__(
        self,
        *,
        target: str,
        credential: Credential | None,
        clock: Clock,
        patience: Patience,
        on_trouble: Callable[[UsanceError], None],
        request_id: str = "",
        traces: Tracer = OFF,
        place: str = "",
    ) -> None:
        """All requests have the one id, or each its own; and are parts of what is at `place`."""
        self._target = target
        self._credential = credential
        self._clock = clock
        self._patience = patience
        self._on_trouble = on_trouble
        self._request_id = request_id
        self._traces = traces
        self._place = place

    async def call(
        self, method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Answer]", request: _Request
    ) -> _Answer:
        tries, request_id = _Tries(self._clock, self._patience.call_ms), self._new_id()
        told = {"request_id": request_id}
        with self._traces.span(_name(method), told, place=self._place) as place:
            while True:
                token = ""
                try:
                    token = await self._token()
                    metadata = _metadata(token, request_id, place)
                    answer = await method(request, timeout=TRY_S, metadata=metadata)
                    _heed_the_word_to_stop()
                    return answer
                except grpc.aio.AioRpcError as error:
                    await self._again(error, tries, token, request_id)

    async def stream(
        self,
        method: "grpc.aio.UnaryStreamMultiCallable[_Request, _Answer]",
        request: Callable[[], _Request],
        is_last: Callable[[_Answer], bool],
        *,
        may_end: bool = False,
    ) -> AsyncIterator[_Answer]:
        """Items until one is the last; `request` says each time from where to go on.

        A stream that ends before its last item has been cut, even if in good order; unless it may end.
        """
        tries, request_id = _Tries(self._clock, self._patience.stream_ms), self._new_id()
        while True:
            token, call = "", None
            try:
                token = await self._token()
                call = method(request(), metadata=_metadata(token, request_id, self._place))
                async for item in call:
                    tries = _Tries(self._clock, self._patience.stream_ms)
                    yield item
                    if is_last(item):
                        return
                if may_end:
                    return
                await self._clock.sleep_ms(tries.next_wait_ms())
            except grpc.aio.AioRpcError as error:
                await self._again(error, tries, token, request_id)
            finally:
                if call is not None:
                    call.cancel()

    def _new_id(self) -> str:
        return self._request_id or new_id("req")

    async def _token(self) -> str:
        return "" if self._credential is None else await self._credential.token()

    async def _again(self, error: grpc.aio.AioRpcError, tries: "_Tries", token: str, request_id: str) -> None:
        """Return when it is time for another try; raise when there is to be none.

        `token` is what the call was sent with, "" if it was not sent: then it is the renewal that has failed.
        """
        _heed_the_word_to_stop()
        meaning, may_repeat = explain(error, self._target)
        meaning.request_id = request_id
        if token and isinstance(meaning, Refused) and meaning.refusal is RefusalCode.UNAUTHENTICATED:
            hopes = self._credential is not None and self._credential.distrust(token)
            if hopes and not tries.has_renewed:
                tries.has_renewed = True
                return
        if not may_repeat or tries.over():
            raise meaning from error
        self._on_trouble(meaning)
        await self._clock.sleep_ms(tries.next_wait_ms())


def _heed_the_word_to_stop() -> None:
    """A call that ends in the same moment keeps it to itself: gRPC tells the answer, or a cut, instead."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _metadata(token: str, request_id: str, place: str) -> tuple[tuple[str, str], ...]:
    told = [(REQUEST_ID_KEY, request_id)]
    if token:
        told.append(("authorization", f"Bearer {token}"))
    if place:
        told.append((KEY, place))
    return tuple(told)


def _name(method: object) -> str:
    """Of the RPC, as gRPC itself keeps it."""
    return bytes(getattr(method, "_method", b"")).decode().removeprefix("/")


class _Tries:
    """Back-off with full jitter, within a limit on the whole."""

    def __init__(self, clock: Clock, limit_ms: int) -> None:
        self._clock = clock
        self._end_ms = clock.boot_ms() + limit_ms
        self._ceiling_ms = BACK_OFF_MS_FIRST
        # A token that was refused was replaced: once, for what is refused again is not refused for its age.
        self.has_renewed = False

    def over(self) -> bool:
        return self._clock.boot_ms() >= self._end_ms

    def next_wait_ms(self) -> int:
        wait_ms = BACK_OFF_MS_FIRST // 4 + new_uuid().int % self._ceiling_ms
        self._ceiling_ms = min(2 * self._ceiling_ms, BACK_OFF_MS_MAX)
        return wait_ms


async def cancel_and_wait(*tasks: "asyncio.Task[Any]") -> None:
    """End tasks and let them clean up."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
