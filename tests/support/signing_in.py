"""What tests of people who sign in have in common."""

from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest

from coordinator.settings import Settings
from runtime.ids import new_uuid
from tests.support.running_coordinator import WAIT_S, Person, Running
from tests.support.scripts import refusal
from usance.v1 import books_pb2 as b
from usance.v1 import login_pb2 as g
from usance.v1 import login_pb2_grpc

PASSWORD, OTHER = "correct horse battery", "another good password"


def cheap(settings: Settings, **others: Any) -> Settings:
    """With passwords that cost next to nothing."""
    return replace(settings, password_memory_mib=1, password_passes=1, password_lanes=1, **others)


async def ask(rpc: Any, request: Any) -> Any:
    """As nobody."""
    return await rpc(request, timeout=WAIT_S, wait_for_ready=True)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def refused_as(call: Any) -> str:
    return refusal(await refused(call))


def login_stub(market: Running) -> Any:
    return login_pb2_grpc.LoginServiceStub(market.channel)  # type: ignore[no-untyped-call, unused-ignore]


async def invitation(market: Running, name: str, **wish: Any) -> str:
    request = g.CreateInvitationRequest(request_id=str(new_uuid()), account_name=name, **wish)
    secret: str = (await market.operator.ask(market.operator.people.CreateInvitation, request)).invitation
    return secret


async def accept(market: Running, secret: str, password: str = PASSWORD, request_id: str = "") -> Any:
    request = g.AcceptInvitationRequest(
        request_id=request_id or str(new_uuid()), invitation=secret, new_password=password, label="laptop"
    )
    return (await ask(login_stub(market).AcceptInvitation, request)).secrets


async def login(market: Running, name: str, password: str = PASSWORD, request_id: str = "") -> Any:
    request = g.LoginRequest(request_id=request_id or str(new_uuid()), account_name=name, password=password)
    return (await ask(login_stub(market).Login, request)).secrets


async def refresh(market: Running, token: str, request_id: str = "") -> Any:
    request = g.RefreshSessionRequest(request_id=request_id or str(new_uuid()), refresh_token=token)
    return (await ask(login_stub(market).RefreshSession, request)).secrets


def person(market: Running, secrets: Any) -> Person:
    return Person(market.channel, secrets.access_token)


async def signed_in(market: Running, name: str = "buyer") -> Any:
    return await accept(market, await invitation(market, name))


async def acts(market: Running) -> list[b.Act]:
    answer = await market.operator.ask(market.operator.operations.ListActs, b.ListActsRequest())
    return list(answer.acts)
