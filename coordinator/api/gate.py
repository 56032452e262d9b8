"""Every RPC passes here: who calls is found out, and what goes wrong is told in the contract's words."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, NoReturn

import grpc
import grpc.aio

from coordinator.api.access import ACCESS, Access, allows
from coordinator.api.status import to_status
from coordinator.domain.account import Account
from coordinator.domain.refusal import Refusal, RefusalCode
from runtime.ids import new_id

_LOG = logging.getLogger(__name__)
_CALLER: ContextVar[Account] = ContextVar("caller")
_HOST_ID: ContextVar[str] = ContextVar("host_id")
_BEARER = "Bearer "
HOST_PREFIX = "host_"

Context = grpc.aio.ServicerContext[Any, Any]
Authenticate = Callable[[str], Awaitable[Account]]


def caller() -> Account:
    """The account whose token came with the request."""
    return _CALLER.get()


def host_id() -> str:
    """The host whose certificate the connection has."""
    return _HOST_ID.get()


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[misc, no-any-unimported, unused-ignore]
    def __init__(self, authenticate: Authenticate) -> None:
        self._authenticate = authenticate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's own handler type is not generic over ours
        handler = await continuation(handler_call_details)
        access = ACCESS.get(handler_call_details.method)
        if handler is None or access is None:
            return None  # what nobody has been admitted to is not there
        codecs = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._one(access, handler.unary_unary), *codecs)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._many(access, handler.unary_stream), *codecs)
        return grpc.stream_stream_rpc_method_handler(self._many(access, handler.stream_stream), *codecs)

    def _one(self, access: Access, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def answer(request: object, context: Context) -> object:
            try:
                await self._admit(access, context)
                return await behaviour(request, context)
            except Exception as error:  # noqa: BLE001 - the one place where an RPC's failure is told
                return await _tell(context, error)

        return answer

    def _many(
        self, access: Access, behaviour: Callable[..., AsyncGenerator[Any, None]]
    ) -> Callable[..., AsyncIterator[Any]]:
        async def answer(request: object, context: Context) -> AsyncIterator[object]:
            try:
                await self._admit(access, context)
                async with aclosing(behaviour(request, context)) as items:
                    async for item in items:
                        yield item
            except Exception as error:  # noqa: BLE001 - as above
                await _tell(context, error)

        return answer

    async def _admit(self, access: Access, context: Context) -> None:
        if access is Access.HOST:
            _HOST_ID.set(_host_of(context))
        elif access is not Access.ANYBODY:
            account = await self._authenticate(_token_of(context))
            if not allows(access, account.roles):
                raise Refusal(RefusalCode.FORBIDDEN, f"this needs an account with the role {access}")
            _CALLER.set(account)


def _token_of(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and isinstance(value, str) and value.startswith(_BEARER):
            return value.removeprefix(_BEARER)
    raise Refusal(RefusalCode.UNAUTHENTICATED, "no token: send `authorization: Bearer TOKEN`")


def _host_of(context: Context) -> str:
    """The authority signs no other names that begin so."""
    for name in context.auth_context().get("x509_common_name", ()):
        if name.startswith(HOST_PREFIX.encode()):
            return name.decode()
    raise Refusal(RefusalCode.UNAUTHENTICATED, "no host's certificate: agents use the host port")


async def _tell(context: Context, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, Refusal):
        quote = new_id("err")
        _LOG.error("%s: an RPC failed", quote, exc_info=error)
        error = Refusal(RefusalCode.INTERNAL, f"our own fault; quote {quote} to the operator")
    await context.abort_with_status(to_status(error))
    raise AssertionError("abort_with_status raises")
