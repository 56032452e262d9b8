"""Every RPC passes here: who calls is found out, and what goes wrong is told in the contract's words."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio
from cryptography import x509
from google.protobuf.message import DecodeError

from coordinator.api import acting
from coordinator.api.access import ACCESS, Access, allows
from coordinator.api.limits import Limits
from coordinator.api.metrics import Metrics
from coordinator.api.status import STATUS, to_status
from coordinator.domain.account import Account, Bearer
from coordinator.domain.act import Act
from coordinator.domain.refusal import Refusal, RefusalCode, invalid
from coordinator.store.database import ClosedError
from runtime.clock import Clock
from runtime.ids import new_id
from runtime.logs import FIELDS
from runtime.tracing import OFF, Tracer, place_in

_LOG = logging.getLogger(__name__)
_CALLER: ContextVar[Bearer] = ContextVar("caller")
_HOST_ID: ContextVar[str] = ContextVar("host_id")
_CERTIFIED_MS: ContextVar[int] = ContextVar("certified_ms")
_PLACE: ContextVar[str] = ContextVar("place", default="")
_BEARER = "Bearer "
_SUBMIT = "/usance.v1.MarketService/SubmitJob"
NOBODY = "nobody"
HOST_PREFIX = "host_"
# Health and reflection answer to the end.
GRPC_OWN = "/grpc."
# How long people's calls are waited for at the end, and how long nobody must have come.
_CLOSING_S = 5.0
_QUIET_S = 0.05
REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

Context = grpc.aio.ServicerContext[Any, Any]
Authenticate = Callable[[str], Awaitable[Bearer]]
# Writes down what was tried in vain.
Keep = Callable[[Act], Awaitable[object]]
# Raises a refusal where the host that a certificate names is none of ours, or none any more.
Recognise = Callable[[str], Awaitable[None]]


def caller() -> Account:
    """The account whose token came with the request."""
    return _CALLER.get().account


def bearer() -> Bearer:
    """The same, with what the token opens."""
    return _CALLER.get()


def place() -> str:
    """Of this RPC in its trace; empty where nobody traces."""
    return _PLACE.get()


def host_id() -> str:
    """The host whose certificate the connection has."""
    return _HOST_ID.get()


def certified_ms() -> int:
    """When that certificate began: the greater, the fresher is what the connection has proved."""
    return _CERTIFIED_MS.get()


@dataclass(kw_only=True)
class _Note:
    """What is known of one RPC, for its log line and the figures."""

    method: str
    request_id: str
    who: str = NOBODY
    address: str = ""
    token_id: str = ""
    status: str = "OK"


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[misc, no-any-unimported, unused-ignore]
    def __init__(
        self,
        authenticate: Authenticate,
        recognise: Recognise,
        keep: Keep,
        limits: Limits,
        metrics: Metrics,
        clock: Clock,
        opened: asyncio.Event,
        traces: Tracer = OFF,
    ) -> None:
        """Whoever comes before it is opened waits."""
        self._opened = opened
        self._authenticate = authenticate
        self._recognise = recognise
        self._keep = keep
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._traces = traces
        self._closing = False
        # People's RPCs: how many are open now, and how many there have been.
        self._inside, self._came = 0, 0
        self._watching: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """From now on who comes is told to come again, and so is who watches. Agents are asked apart.

        Answered are also those whose calls were on their way: gRPC itself would only cut them off.
        """
        self._closing = True
        for task in self._watching:
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_S):
                came = -1
                while self._inside or self._came != came:
                    came = self._came
                    await asyncio.sleep(_QUIET_S)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's own handler type is not generic over ours
        await self._opened.wait()
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method not in ACCESS:
            return None  # what nobody has been admitted to is not there
        reads, writes = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary:
            one = self._one(method, handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(one, _reading(reads), writes)
        if handler.unary_stream:
            many = self._many(method, handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(many, _reading(reads), writes)
        many = self._many(method, handler.stream_stream)
        return grpc.stream_stream_rpc_method_handler(many, _reading_each(reads), writes)

    def _one(self, method: str, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def answer(request: object, context: Context) -> object:
            with (
                self._noted(method, context) as note,
                self._metrics.rpc_seconds.labels(method).time(),
                self._traced(note, context),
            ):
                try:
                    return await self._answered(note, behaviour, request, context)
                except Exception as error:  # noqa: BLE001 - the one place where an RPC's failure is told
                    return await _tell(note, context, error)

        return answer

    async def _answered(
        self, note: _Note, behaviour: Callable[..., Awaitable[Any]], request: object, context: Context
    ) -> object:
        """A refusal that belongs into the log of acts is written there before it is told."""
        act, rule = None, ACCESS[note.method]
        try:
            await self._admit(note, context)
            _must_be_read(request)
            if rule.is_act:
                act = acting.begin(self._act(note, request))
            return await behaviour(request, context)
        except Refusal as refusal:
            if act is not None and rule.access is Access.OPERATOR:
                await self._keep(act.refused(str(refusal.code)))
            elif refusal.is_act:
                await self._keep(acting.Acting(self._act(note, request)).refused(str(refusal.code)))
            raise

    def _many(
        self, method: str, behaviour: Callable[..., AsyncGenerator[Any, None]]
    ) -> Callable[..., AsyncIterator[Any]]:
        async def answer(request: Any, context: Context) -> AsyncIterator[object]:  # noqa: ANN401 - as above
            with (
                self._noted(method, context) as note,
                self._metrics.streams.labels(method).track_inprogress(),
                self._traced(note, context),
            ):
                task = asyncio.current_task()
                assert task is not None, "gRPC serves each RPC in a task"
                try:
                    await self._admit(note, context)
                    people = ACCESS[method].access is not Access.HOST
                    if people:
                        self._watching.add(task)
                    asked = _must_be_read(request)
                    whose = note.address if note.who == NOBODY else note.who
                    with self._limits.stream(whose) if people else nullcontext():
                        async with aclosing(behaviour(asked, context)) as items:
                            async for item in items:
                                yield item
                except asyncio.CancelledError:
                    if not self._closing:
                        raise
                    await _tell(note, context, _stopping())
                except Exception as error:  # noqa: BLE001 - as above
                    await _tell(note, context, error)
                finally:
                    self._watching.discard(task)

        return answer

    @contextmanager
    def _noted(self, method: str, context: Context) -> Iterator[_Note]:
        note, began_ms = _Note(method=method, request_id=_request_id(context)), self._clock.boot_ms()
        people = ACCESS[method].access is not Access.HOST
        self._inside += people
        self._came += people
        try:
            yield note
        except (asyncio.CancelledError, GeneratorExit):
            note.status = "CANCELLED"
            raise
        finally:
            self._inside -= people
            self._metrics.rpcs.labels(method, note.status).inc()
            took_ms = self._clock.boot_ms() - began_ms
            fields = {**vars(note), "took_ms": took_ms}
            _LOG.info(
                "%s %s %s by %s in %d ms",
                *(note.request_id, method, note.status, note.who, took_ms),
                extra={FIELDS: fields},
            )

    @contextmanager
    def _traced(self, note: _Note, context: Context) -> Iterator[None]:
        if not self._traces.is_on:
            yield
            return
        came = place_in(context.invocation_metadata())
        method, told = note.method.removeprefix("/"), {"request_id": note.request_id}
        with self._traces.span(method, told, place=came, is_server=True) as place:
            _PLACE.set(place)
            yield

    async def _admit(self, note: _Note, context: Context) -> None:
        rule = ACCESS[note.method]
        access = rule.access
        note.address = acting.address_of(context.peer())
        if self._closing and not note.method.startswith(GRPC_OWN):
            raise _stopping()
        if access is Access.HOST:
            shown = context.auth_context()
            note.who = _host_of(shown)
            await self._recognise(note.who)
            self._limits.shown(context.peer())
            _HOST_ID.set(note.who)
            _CERTIFIED_MS.set(_begins_ms(shown))
        elif access is not Access.ANYBODY:
            came = await self._known(note, token_of(context))
            self._limits.shown(context.peer())
            self._limits.request(came.account.id)
            if not allows(access, came.account.roles):
                raise Refusal(RefusalCode.FORBIDDEN, f"this needs an account with the role {access}")
            if rule.scope is not None and rule.scope not in came.scopes:
                raise Refusal(RefusalCode.FORBIDDEN, f"this needs a token with the scope {rule.scope}")
            if note.method == _SUBMIT:
                self._limits.submit(came.account.id)
            _CALLER.set(came)
        elif not note.method.startswith(GRPC_OWN):
            self._limits.anonymous(note.address)

    async def _known(self, note: _Note, token: str) -> Bearer:
        self._limits.try_token(note.address, token)
        try:
            came = await self._authenticate(token)
        except Refusal:
            self._limits.was_bad(note.address, token)
            raise
        self._limits.was_good(token)
        note.who, note.token_id = came.account.id, came.token_id
        return came

    def _act(self, note: _Note, request: Any) -> Act:  # noqa: ANN401 - a message of any kind
        return Act(
            id=new_id("act"),
            happened_ms=self._clock.wall_ms(),
            who="" if note.who == NOBODY else note.who,
            token_id=note.token_id,
            address=note.address,
            rpc=note.method.removeprefix("/usance.v1."),
            request=acting.summary(request),
            result=acting.OK,
            request_id=note.request_id,
        )


class _Unreadable:
    """Bytes that are no message. gRPC itself would call it a fault of ours."""


def _reading(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(raw: bytes) -> Any:  # noqa: ANN401 - a message of any kind
        try:
            return deserialize(raw)
        except DecodeError:
            return _Unreadable()

    return read


def _must_be_read(request: Any) -> Any:  # noqa: ANN401 - a message of any kind
    if isinstance(request, _Unreadable):
        raise invalid("request", "a message of this RPC, as the contract has it")
    return request


def _reading_each(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """For a stream of them: there the behaviour asks for each, and is told so itself."""
    read = _reading(deserialize)

    def must_read(raw: bytes) -> Any:  # noqa: ANN401 - as above
        return _must_be_read(read(raw))

    return must_read


def _stopping() -> Refusal:
    return Refusal(RefusalCode.UNAVAILABLE, "the coordinator is stopping; try again in a moment")


def _request_id(context: Context) -> str:
    """The caller's own name for the request where it is fit to be written down, else one of ours."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return new_id("rpc")


def token_of(context: Context) -> str:
    """The secret that came with the request."""
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str) and value.startswith(_BEARER):
            return value.removeprefix(_BEARER)
    raise Refusal(RefusalCode.UNAUTHENTICATED, "no token: send `authorization: Bearer TOKEN`")


def _host_of(shown: Mapping[str, Iterable[bytes]]) -> str:
    """The authority signs no other names that begin so."""
    for name in shown.get("x509_common_name", ()):
        if name.startswith(HOST_PREFIX.encode()):
            return name.decode()
    raise Refusal(RefusalCode.UNAUTHENTICATED, "no host's certificate: agents use the host port")


def _begins_ms(shown: Mapping[str, Iterable[bytes]]) -> int:
    (pem, *_) = shown["x509_pem_cert"]
    return int(x509.load_pem_x509_certificate(pem).not_valid_before_utc.timestamp() * 1_000)


async def _tell(note: _Note, context: Context, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, ClosedError):
        error = _stopping()
    if not isinstance(error, Refusal):
        _LOG.error("%s: an RPC failed", note.request_id, exc_info=error)
        error = Refusal(RefusalCode.INTERNAL, f"our own fault; quote {note.request_id} to the operator")
    note.status = STATUS[error.code].name
    await context.abort_with_status(to_status(error))
    raise AssertionError("abort_with_status raises")
