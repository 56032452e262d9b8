"""What a seller wishes at the machine itself, by the host's certificate."""

from runtime.channel import open_channel
from runtime.ids import new_uuid
from tests.integration.test_coordinator_books import refused
from tests.support.running_coordinator import Running
from tests.support.scripts import Play, goes_on, started
from usance.v1 import host_pb2 as h
from usance.v1 import host_pb2_grpc
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t


def test_the_machine_can_hold_itself_back_and_knows_what_it_earned(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        who = agent.identity
        async with open_channel(
            agent.address, who.authority_pem, who.key_pem, who.certificate_pem
        ) as channel:
            stub = host_pb2_grpc.HostServiceStub(channel)

            async def wish(what: h.SellerWish.ValueType, request_id: str = "") -> t.HostState.ValueType:
                request = h.SetHoldRequest(request_id=request_id or str(new_uuid()), wish=what)
                return (await stub.SetHold(request)).state

            asked = str(new_uuid())
            for _ in range(2):
                assert await wish(h.SELLER_WISH_PAUSE, asked) == t.HOST_STATE_PAUSED
            assert await refused(wish(h.SELLER_WISH_SELL, asked)) == "REQUEST_ID_REUSED"
            assert await refused(wish(h.SELLER_WISH_UNSPECIFIED)) == "INVALID_FIELD"
            await market.host_is(agent.host_id, t.HOST_STATE_PAUSED)
            assert await wish(h.SELLER_WISH_SELL) == t.HOST_STATE_ONLINE
            _, run = await started(market, agent)
            await goes_on(market, agent, run, 10_000, by_ms=10_000)
            await agent.usage(run, run.record(10_000))
            now = await stub.GetStanding(h.GetStandingRequest())
            assert (now.state, now.attempt_count) == (t.HOST_STATE_ONLINE, 1)
            wallet = await market.seller.ask(market.seller.account.GetWallet, m.GetWalletRequest())
            assert now.earned_micro == wallet.earnings_micro > 0
            later = await stub.GetStanding(h.GetStandingRequest(since_ms=market.clock.wall_ms() + 1))
            assert (later.attempt_count, later.earned_micro) == (0, 0)
            assert await wish(h.SELLER_WISH_RECLAIM) == t.HOST_STATE_DRAINING
            await goes_on(market, agent, run, 12_000, by_ms=2_000)

            def is_told() -> bool:
                wanted = agent.wanted(run)
                return wanted is not None and wanted.stop_reason == t.END_REASON_RECLAIMED

            await agent.until(is_told, "it is to stop")

    play(script)
