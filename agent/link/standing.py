"""What this machine asks about itself, and its seller's wishes: single calls, beside the stream."""

from dataclasses import dataclass
from enum import StrEnum

import grpc.aio

from agent.link.client import describe
from agent.link.identity import Identity
from runtime.channel import open_channel
from runtime.ids import new_uuid
from usance.v1 import host_pb2, host_pb2_grpc, types_pb2

_WAIT_S = 15
_PREFIX = "HOST_STATE_"


class Wish(StrEnum):
    """What the seller wants of the machine."""

    SELL = "sell"
    PAUSE = "pause"
    RECLAIM = "reclaim"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where the host stands in the market: "online", "paused", …, and what it has earned."""

    state: str
    reason: str
    attempt_count: int = 0
    earned_micro: int = 0


class UnreachedError(Exception):
    """The coordinator can't be asked, or refuses. The message says why, to a person."""


async def standing(identity: Identity, since_ms: int) -> Standing:
    """Raises UnreachedError."""
    async with _channel(identity) as channel:
        try:
            answer = await host_pb2_grpc.HostServiceStub(channel).GetStanding(
                host_pb2.GetStandingRequest(since_ms=since_ms), timeout=_WAIT_S
            )
        except grpc.aio.AioRpcError as error:
            raise UnreachedError(describe(error)) from error
    return Standing(
        state=_state(answer.state),
        reason=answer.reason,
        attempt_count=answer.attempt_count,
        earned_micro=answer.earned_micro,
    )


async def wish(identity: Identity, what: Wish) -> Standing:
    """Raises UnreachedError."""
    number = host_pb2.SellerWish.Value(f"SELLER_WISH_{what.name}")
    async with _channel(identity) as channel:
        try:
            answer = await host_pb2_grpc.HostServiceStub(channel).SetHold(
                host_pb2.SetHoldRequest(request_id=str(new_uuid()), wish=number), timeout=_WAIT_S
            )
        except grpc.aio.AioRpcError as error:
            raise UnreachedError(describe(error)) from error
    return Standing(state=_state(answer.state), reason=answer.reason)


def _channel(identity: Identity) -> grpc.aio.Channel:
    return open_channel(identity.hosts, identity.authority_pem, identity.key_pem, identity.certificate_pem)


def _state(number: types_pb2.HostState.ValueType) -> str:
    return types_pb2.HostState.Name(number).removeprefix(_PREFIX).lower()
