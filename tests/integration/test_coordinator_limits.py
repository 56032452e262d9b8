"""How much one account and one address may ask for, and the log of what was done."""

from dataclasses import replace
from typing import Any

import grpc.aio
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from coordinator.api.limits import WEIGH_MS
from coordinator.services import acts
from runtime.ids import new_uuid
from tests.support.running_coordinator import Person, Running, eventually
from tests.support.scripted_agent import enrol
from tests.support.scripts import Play, read_logs, refusal, started
from usance.v1 import books_pb2 as b
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t


@pytest.fixture
def template(template: Any) -> Any:
    return replace(
        template,
        account_requests_per_second=2,
        account_requests_burst=20,
        account_streams_max=2,
        bad_tokens_burst=5,
        enrolments_per_second=2,
        enrolments_burst=3,
        job_output_mib_max=1,
        account_output_mib_max=1,
    )


async def refused(call: Any) -> tuple[str, int]:
    """With what code, and for how long."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    for key, value in caught.value.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in Status.FromString(value).details:
                info = RetryInfo()
                if detail.Unpack(info):
                    return refusal(caught.value), info.retry_delay.ToMilliseconds()
    return refusal(caught.value), 0


def test_one_account_is_slowed_down_and_nobody_else(play: Play) -> None:
    async def script(market: Running) -> None:
        buyer = market.buyer
        for _ in range(20):
            await buyer.wallet()
        assert await refused(buyer.wallet()) == ("RATE_LIMITED", 500)
        await market.seller.wallet()
        market.clock.advance(500)
        await buyer.wallet()
        assert await refused(buyer.wallet()) == ("RATE_LIMITED", 500)
        market.clock.advance(60_000)
        request = m.WatchOffersRequest()
        streams = []
        for _ in range(2):
            streams.append(buyer.stream(buyer.market.WatchOffers, request))
            await streams[-1].read()
        streams.append(buyer.stream(buyer.market.WatchOffers, request))
        assert await refused(streams[2].read()) == ("RATE_LIMITED", 1_000)
        for stream in streams:
            stream.cancel()
        market.clock.advance(60_000)

    play(script)


def test_an_address_enrols_so_many_machines_and_then_is_told_when_to_try_again(play: Play) -> None:
    async def script(market: Running) -> None:
        guesses = [
            await refused(enrol(market.settings.market, market.authority_pem, f"usance_sec_{number}"))
            for number in range(4)
        ]
        assert guesses == [("ENROLMENT_REFUSED", 0)] * 3 + [("RATE_LIMITED", 500)]
        market.clock.advance(500)
        await market.identity()

    play(script)


def test_of_a_jobs_output_so_much_is_kept_and_nobody_waits_for_the_rest(play: Play) -> None:
    """The seller's agent may not fill the database, nor may the buyer's command."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        chunk = b"x" * 65_536
        assert (await agent.logs(run, *(run.writes(chunk) for _ in range(10)))).log_offset == 10 * 65_536
        # Sixteen fit.
        assert (await agent.logs(run, *(run.writes(chunk) for _ in range(10)))).log_offset == 20 * 65_536
        assert (await agent.logs(run, run.writes(b"more"))).log_offset == 20 * 65_536 + 4
        (shown,) = (await market.buyer.job(job.job_id)).attempts
        assert shown.detail == "its output is more than the 1 MiB that are kept; the rest is not"
        run.record(1)
        await agent.usage(run, *run.records)
        await agent.beat(run.ended())
        assert (await market.buyer.ended(job.job_id)).state == t.JOB_STATE_SUCCEEDED
        read = [answer async for answer in read_logs(market, job.job_id)]
        assert b"".join(answer.chunk.chunk.data for answer in read) == chunk * 16
        assert (read[-1].end.complete, read[-1].end.offset) == (False, 1 << 20)
        await agent.until(lambda: agent.wanted(run) is None, "the attempt is let go")

    play(script)


def test_an_account_whose_jobs_have_too_much_output_kept_sends_in_no_more(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        _, run = await started(market, agent)
        await agent.logs(run, *(run.writes(b"x" * 65_536) for _ in range(10)))
        await agent.logs(run, *(run.writes(b"x" * 65_536) for _ in range(6)))
        market.clock.advance(WEIGH_MS)

        async def refuses() -> bool:
            market.clock.advance(WEIGH_MS)
            try:
                await market.buyer.submit(budget_micro=1_000)
            except grpc.aio.AioRpcError as error:
                return refusal(error) == "RATE_LIMITED"
            return False

        await eventually(refuses, "it was weighed")
        market.clock.advance(60_000)
        assert await refused(market.buyer.submit(budget_micro=1_000)) == ("RATE_LIMITED", WEIGH_MS)
        await agent.leave()

    play(script)


def test_who_guesses_tokens_is_slowed_down_and_whose_are_good_is_not(play: Play) -> None:
    async def script(market: Running) -> None:
        await market.buyer.wallet()
        guesses = [Person(market.channel, f"usance_tok_{number:032}") for number in range(7)]
        said = [(await refused(guess.wallet()))[0] for guess in guesses]
        assert said == ["UNAUTHENTICATED"] * 5 + ["RATE_LIMITED"] * 2
        await market.buyer.wallet()
        market.clock.advance(1_000)
        assert (await refused(guesses[6].wallet()))[0] == "UNAUTHENTICATED"

    play(script)


def test_what_was_done_is_kept_with_who_did_it_and_from_where(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        operator, buyer = market.operator, market.buyer
        market.clock.advance(60_000)
        await market.deposit("buyer", 7)
        job = await buyer.submit()
        with pytest.raises(grpc.aio.AioRpcError):
            await market.deposit("nobody", 5)
        await buyer.cancel(job.job_id)
        # Who may not do it did not get so far.
        with pytest.raises(grpc.aio.AioRpcError):
            await buyer.ask(buyer.admin.RunAudit, m.RunAuditRequest())
        listed = await operator.ask(operator.operations.ListActs, b.ListActsRequest(page_size=4))
        told = [(act.rpc, act.request, act.result) for act in listed.acts]
        assert told == [
            ("MarketService/CancelJob", f"job_id={job.job_id}", "OK"),
            ("AdminService/Deposit", "account_name=nobody amount_micro=5 reason=test", "NOT_FOUND"),
            (
                "MarketService/SubmitJob",
                "spec.name=train spec.image=python:3.12 spec.budget_micro=1000000",
                "OK",
            ),
            ("AdminService/Deposit", "account_name=buyer amount_micro=7 reason=test", "OK"),
        ]
        assert {act.address for act in listed.acts} == {"127.0.0.1"}
        assert all(
            act.request_id.startswith("rpc_") and act.token_id.startswith("tok_") for act in listed.acts
        )
        rest = b.ListActsRequest(page_size=500, page_token=listed.next_page_token)
        before = (await operator.ask(operator.operations.ListActs, rest)).acts
        assert {act.act_id for act in before}.isdisjoint(act.act_id for act in listed.acts)
        mine = b.ListActsRequest(account_name="buyer")
        whose = (await operator.ask(operator.operations.ListActs, mine)).acts
        assert [act.rpc for act in whose] == ["MarketService/CancelJob", "MarketService/SubmitJob"]
        # The same again is told again, and changes nothing.
        request_id = str(new_uuid())
        for _ in range(2):
            await market.deposit("buyer", 1, request_id)
        assert (await buyer.wallet()).wallet_micro == 10_000_008

    play_on_both(script)


def test_a_refusal_that_can_not_be_noted_is_told_as_a_fault_of_ours(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC told of the exception in its own words, and the figures had the call as well answered."""

    def fails(*_: object) -> None:
        raise RuntimeError("no room")

    async def script(market: Running) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(acts, "keep_all", fails)
            assert (await refused(market.deposit("nobody", 5)))[0] == "INTERNAL"
        assert (await refused(market.deposit("nobody", 5)))[0] == "NOT_FOUND"

    play(script)
