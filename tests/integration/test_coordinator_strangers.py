"""What somebody costs who has not said who they are, and where that ends."""

import asyncio
import os
import socket
import ssl
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest

from coordinator.settings import split_address
from coordinator.strangers import LOOK_EVERY_MS, Strangers, peer_of
from runtime.channel import open_channel
from tests.support.running_coordinator import Person, Running, eventually
from tests.support.scripts import Play, refusal
from usance.v1 import market_pb2 as m


@pytest.fixture
def template(template: Any) -> Any:
    return replace(
        template,
        connections_max=40,
        address_strangers_max=10,
        handshake_ms_max=1_000,
        idle_connection_ms=1_500,
        message_bytes_max=1 << 19,
    )


def connect(address: str) -> socket.socket:
    connection = socket.create_connection(split_address("", address))
    connection.settimeout(0)
    return connection


def is_over(connection: socket.socket) -> bool:
    with suppress(BlockingIOError):
        return connection.recv(1) == b""
    return False


async def over(connections: list[socket.socket], count: int, what: str) -> None:
    async def look() -> bool:
        return sum(map(is_over, connections)) >= count

    await eventually(look, what)


def test_who_does_not_end_the_handshake_or_has_nothing_to_ask_is_put_out(play: Play) -> None:
    async def script(market: Running) -> None:
        for address in (market.settings.market, market.settings.hosts):
            with closing(connect(address)) as silent:
                await over([silent], 1, "the handshake has taken too long")
        context = ssl.create_default_context(cadata=market.authority_pem.decode())
        context.set_alpn_protocols(["h2"])
        host, port = split_address("", market.settings.market)
        reader, writer = await asyncio.open_connection(
            host, port, ssl=context, server_hostname="coordinator.usance"
        )
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4" + bytes(5))
        async with asyncio.timeout(30):
            while await reader.read(1_000):
                pass
        writer.close()
        # Those who are put out so and have something to ask then just connect again.
        await market.buyer.wallet()

    play(script)


def test_an_address_has_so_many_connections_that_have_shown_nothing(play: Play) -> None:
    """Those that have are not among them, and stay."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        watching = market.buyer.stream(market.buyer.market.WatchOffers, m.WatchOffersRequest())
        await watching.read()
        connections = [connect(market.settings.market) for _ in range(30)]
        try:

            async def cut() -> bool:
                market.clock.advance(LOOK_EVERY_MS)
                return sum(map(is_over, connections)) >= 20

            await eventually(cut, "those that are too many are shut down")
        finally:
            for connection in connections:
                connection.close()
        assert not agent.is_over
        await agent.beat()
        assert not watching.done()
        watching.cancel()

    play(script)


def test_all_addresses_together_have_so_many(play: Play) -> None:
    async def script(market: Running) -> None:
        connections = [connect(market.settings.hosts) for _ in range(60)]
        try:
            await over(connections, 20, "more than there may be are closed at once")
        finally:
            for connection in connections:
                connection.close()

    play(script)


def test_a_message_that_is_too_long_is_refused_before_it_is_read(play: Play) -> None:
    async def script(market: Running) -> None:
        long = m.GetJobRequest(job_id="a" * (1 << 19))
        token = str(market.buyer.metadata[0][1]).removeprefix("Bearer ")
        async with open_channel(market.settings.market, market.authority_pem) as channel:
            person = Person(channel, token)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await person.ask(person.market.GetJob, long)
        assert refusal(caught.value) == "RESOURCE_EXHAUSTED"

    play(script)


def test_nobody_is_looked_for_while_there_can_be_none_too_many() -> None:
    """With nobody too many, not a single descriptor is opened."""
    strangers = Strangers(1_000_000)
    assert strangers.look({1}) == 0


def test_to_look_leaves_nothing_open() -> None:
    """Descriptors of what is no socket were once left behind, and looked at again."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert Strangers(0).look({1}) == 0
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("ipv4:192.0.2.1:4711", ("192.0.2.1", 4711)),
        ("ipv6:%5B2001:db8::1%5D:99", ("2001:db8::1", 99)),
        ("ipv6:%5B::ffff:192.0.2.1%5D:99", ("192.0.2.1", 99)),
        ("unix:/run/a", None),
    ],
)
def test_a_peer_has_one_name(name: str, peer: tuple[str, int] | None) -> None:
    assert peer_of(name) == peer
