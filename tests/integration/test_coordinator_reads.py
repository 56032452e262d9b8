"""What people read: output since a moment, bills and hosts in pages, and a host that is trusted again."""

from itertools import pairwise

import grpc.aio
import pytest

from cli.client.convert import bill_of, joined_bill
from cli.verify import verify_bill
from coordinator.api import market as market_api
from runtime.ids import new_uuid
from tests.support.running_coordinator import Running
from tests.support.scripts import Play, all_of, goes_on, read_logs, refusal, started
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t


async def text_since(market: Running, job_id: str, since_ms: int) -> bytes:
    answers = await all_of(read_logs(market, job_id, since_ms=since_ms))
    assert answers[-1].HasField("end")
    return b"".join(answer.chunk.chunk.data for answer in answers)


def test_output_since_a_moment(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        for text in (b"one ", b"two ", b"three"):
            await agent.logs(run, run.writes(text))
            await goes_on(market, agent, run, 0, by_ms=1_000)
        # Each came in at the beginning of its second.
        assert await text_since(market, job.job_id, 3_000) == b"one two three"
        assert await text_since(market, job.job_id, 2_500) == b"two three"
        assert await text_since(market, job.job_id, 1_000) == b"three"
        assert not await text_since(market, job.job_id, 999)
        *pieces, _ = await all_of(read_logs(market, job.job_id))
        stored = [piece.chunk.stored_at_ms for piece in pieces]
        assert [now - first for first, now in pairwise(stored)] == [1_000, 1_000]
        # The job runs, and still what has happened until now comes to an end.
        request = m.WatchJobRequest(job_id=job.job_id, until_now=True)
        events = await all_of(market.buyer.stream(market.buyer.market.WatchJob, request))
        assert [answer.event.kind for answer in events][:2] == [m.EVENT_KIND_SUBMITTED, m.EVENT_KIND_ASSIGNED]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_of(read_logs(market, job.job_id, since_ms=1, tail_bytes=1))
        assert refusal(caught.value) == "INVALID_FIELD"

    play_on_both(script)


def test_a_bill_comes_in_pages_that_make_one(play_on_both: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_api, "BILL_LINES_A_PAGE", 3)

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent, run_ms_max=100_000)
        for second in range(1, 9):
            await goes_on(market, agent, run, second * 1_000, by_ms=1_000)
            await agent.usage(run, run.record(second * 1_000))
        await agent.beat(run.ended(exit_code=0, usage_number_last=8))
        await market.buyer.ended(job.job_id)
        request, pages = m.GetBillRequest(job_id=job.job_id), []
        while True:
            answer = await market.buyer.ask(market.buyer.market.GetBill, request)
            pages.append(bill_of(answer.bill))
            request.page_token = answer.next_page_token
            if not request.page_token:
                break
        assert [[line.record.number for line in page.attempts[0].lines] for page in pages] == [
            [1, 2, 3],
            [4, 5, 6],
            [7, 8],
        ]
        verdict = verify_bill(joined_bill(pages))
        assert (verdict.problems, verdict.lines_checked, verdict.charged_micro) == ((), 8, 8_000)
        assert bill_of(answer.bill).attempts[0].end_reason.value == "EXITED"
        request.page_token = "first"
        with pytest.raises(grpc.aio.AioRpcError, match="page_token"):
            await market.buyer.ask(market.buyer.market.GetBill, request)

    play_on_both(script)


def test_hosts_come_in_pages(play: Play) -> None:
    async def script(market: Running) -> None:
        agents = [await market.agent() for _ in range(3)]
        request, found = m.ListHostsRequest(page_size=2), list[str]()
        while True:
            answer = await market.seller.ask(market.seller.sells.ListHosts, request)
            found += [host.host_id for host in answer.hosts]
            request.page_token = answer.next_page_token
            if not request.page_token:
                break
        assert found == sorted(agent.host_id for agent in agents)

    play(script)


def test_who_trusts_a_host_again_leaves_its_sellers_wish(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        names = {"request_id": str(new_uuid()), "host_id": agent.host_id}
        await market.seller.ask(market.seller.sells.PauseHost, m.PauseHostRequest(**names))
        admin = market.operator.admin
        for _ in range(2):
            request = m.QuarantineHostRequest(
                request_id=str(new_uuid()), host_id=agent.host_id, reason="odd usage"
            )
            host = (await market.operator.ask(admin.QuarantineHost, request)).host
            assert (host.state, host.reason) == (t.HOST_STATE_QUARANTINED, "odd usage")
        for _ in range(2):
            trust = m.UnquarantineHostRequest(request_id=str(new_uuid()), host_id=agent.host_id)
            host = (await market.operator.ask(admin.UnquarantineHost, trust)).host
            assert (host.state, host.reason) == (t.HOST_STATE_PAUSED, "its seller takes no new jobs")
        resume = m.ResumeHostRequest(request_id=str(new_uuid()), host_id=agent.host_id)
        host = (await market.seller.ask(market.seller.sells.ResumeHost, resume)).host
        assert host.state == t.HOST_STATE_ONLINE

    play(script)
