"""Tokens, statements, costs and earnings of the real coordinator."""

import pytest
from grpc.aio import AioRpcError

from runtime.ids import new_uuid
from tests.support.running_coordinator import WINDOW_MS, Person, Running
from tests.support.scripts import Play, goes_on, refusal, started
from usance.v1 import books_pb2 as b
from usance.v1 import types_pb2 as t

HOUR_MS = 3_600_000


async def refused(call) -> str:
    with pytest.raises(AioRpcError) as caught:
        await call
    return refusal(caught.value)


def own_token(person: Person, **wanted):
    request = b.CreateOwnTokenRequest(**{"request_id": str(new_uuid()), **wanted})
    return person.ask(person.tokens.CreateOwnToken, request)


async def tokens(person: Person, **wanted) -> list[b.Token]:
    return list((await person.ask(person.tokens.ListTokens, b.ListTokensRequest(**wanted))).tokens)


def revoke(person: Person, token_id: str, account_name: str = ""):
    request = b.RevokeTokenRequest(request_id=str(new_uuid()), token_id=token_id, account_name=account_name)
    return person.ask(person.tokens.RevokeToken, request)


def test_a_token_is_made_listed_used_and_revoked(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        buyer, request_id = market.buyer, str(new_uuid())
        made = [
            await own_token(buyer, request_id=request_id, label="ci", lifetime_ms=HOUR_MS) for _ in range(2)
        ]
        assert made[0] == made[1]
        assert made[0].expires_at_ms == market.clock.wall_ms() + HOUR_MS
        assert await refused(own_token(buyer, request_id=request_id)) == "REQUEST_ID_REUSED"
        ci = Person(market.channel, made[0].token)
        assert (await ci.wallet()).wallet_micro == 10_000_000
        # Both were made in the same millisecond, and either may come first.
        found = {token.label: token for token in await tokens(ci)}
        assert (found["ci"].current, found[""].current) == (True, False)
        pages = [
            (await buyer.ask(buyer.tokens.ListTokens, b.ListTokensRequest(page_size=1, page_token=page)))
            for page in ("", "")
        ]
        assert pages[0] == pages[1]
        rest = await tokens(buyer, page_size=1, page_token=pages[0].next_page_token)
        assert {pages[0].tokens[0].token_id, rest[0].token_id} == {x.token_id for x in found.values()}
        # Revoked: refused from then on, by whoever asked.
        ended = (await revoke(ci, found["ci"].token_id)).token
        assert ended.revoked_at_ms == market.clock.wall_ms()
        assert await refused(ci.wallet()) == "UNAUTHENTICATED"
        market.clock.advance(5_000)
        assert (await revoke(buyer, found["ci"].token_id)).token == b.Token(
            **{field.name: value for field, value in ended.ListFields() if field.name != "current"}
        )
        assert [token.label for token in await tokens(buyer)] == [""]
        assert {token.label for token in await tokens(buyer, all=True)} == {"", "ci"}

    play_on_both(script)


def test_a_token_does_not_outlive_the_one_it_was_made_with(play: Play) -> None:
    async def script(market: Running) -> None:
        first = await own_token(market.buyer, lifetime_ms=HOUR_MS)
        brief = Person(market.channel, first.token)
        assert (await own_token(brief)).expires_at_ms == first.expires_at_ms
        assert await refused(own_token(brief, lifetime_ms=HOUR_MS + 1)) == "INVALID_FIELD"
        market.clock.advance(HOUR_MS)
        assert await refused(own_token(brief)) == "UNAUTHENTICATED"

    play(script)


def test_an_account_has_so_many_tokens_and_no_more(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.services.tokens.TOKENS_MAX", 2)

    async def script(market: Running) -> None:
        await own_token(market.buyer)
        assert await refused(own_token(market.buyer)) == "FORBIDDEN"
        await revoke(market.buyer, (await tokens(market.buyer))[0].token_id)

    play(script)


def test_tokens_of_others_are_the_operators_affair(play: Play) -> None:
    async def script(market: Running) -> None:
        (token,) = await tokens(market.operator, account_name="buyer")
        assert not token.current
        assert await refused(tokens(market.seller, account_name="buyer")) == "FORBIDDEN"
        assert await refused(revoke(market.seller, token.token_id, "buyer")) == "FORBIDDEN"
        assert await refused(revoke(market.seller, token.token_id)) == "NOT_FOUND"
        assert await refused(revoke(market.operator, "tok_1", "buyer")) == "NOT_FOUND"
        assert await refused(tokens(market.operator, account_name="nobody")) == "NOT_FOUND"
        assert await refused(tokens(market.operator, page_token="1.tok_x")) == "INVALID_FIELD"
        assert (await tokens(market.buyer, account_name="buyer"))[0].current
        await revoke(market.operator, token.token_id, "buyer")
        assert await refused(market.buyer.wallet()) == "UNAUTHENTICATED"

    play(script)


def statement(person: Person, **wanted):
    return person.ask(person.books.GetStatement, b.GetStatementRequest(**wanted))


def test_the_books_of_a_job_from_both_sides(play_on_both: Play) -> None:
    """One job that ends well, and one whose host is lost."""

    async def script(market: Running) -> None:
        began_ms = market.clock.wall_ms()
        agent = await market.agent()
        good, run = await started(market, agent, labels={"team": "vision"}, budget_micro=30_000)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        await agent.usage(run, run.record(10_000))
        await agent.beat(run.ended())
        await market.buyer.ended(good.job_id)
        bad, run = await started(market, agent)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        await agent.usage(run, run.record(10_000))
        await agent.leave()
        market.clock.advance(4_000)
        market.clock.advance(WINDOW_MS)
        await market.buyer.ended(bad.job_id)

        costs = list((await market.buyer.ask(market.buyer.books.ListCosts, b.ListCostsRequest())).jobs)
        assert [(c.job_id, c.charged_micro, c.credited_micro, c.billed_ms, c.held_micro) for c in costs] == [
            (bad.job_id, 10_000, 10_000, 10_000, 0),
            (good.job_id, 10_000, 0, 10_000, 0),
        ]
        assert dict(costs[1].labels) == {"team": "vision"}
        # In pages, and in a period.
        page = await market.buyer.ask(market.buyer.books.ListCosts, b.ListCostsRequest(page_size=1))
        assert list(page.jobs) == costs[:1]
        page = await market.buyer.ask(
            market.buyer.books.ListCosts, b.ListCostsRequest(page_token=page.next_page_token)
        )
        assert (list(page.jobs), page.next_page_token) == (costs[1:], "")
        for since_ms, until_ms, found in (
            (0, costs[0].submitted_at_ms, costs[1:]),
            (costs[0].submitted_at_ms, 0, costs[:1]),
            (began_ms + HOUR_MS, 0, []),
        ):
            request = b.ListCostsRequest(since_ms=since_ms, until_ms=until_ms)
            assert list((await market.buyer.ask(market.buyer.books.ListCosts, request)).jobs) == found

        seller = market.seller
        earned = list((await seller.ask(seller.books.ListEarnings, b.ListEarningsRequest())).attempts)
        assert [(e.charged_micro, e.fee_micro, e.returned_micro, e.cause) for e in earned] == [
            (10_000, 500, 9_500, t.CAUSE_HOST),
            (10_000, 500, 0, t.CAUSE_BUYER),
        ]
        assert {(e.host_id, e.gpu_count) for e in earned} == {(agent.host_id, 1)}
        for since_ms, until_ms, found in (
            (0, earned[0].assigned_at_ms, earned[1:]),
            (earned[0].assigned_at_ms, 0, earned[:1]),
        ):
            sold = b.ListEarningsRequest(since_ms=since_ms, until_ms=until_ms)
            assert list((await seller.ask(seller.books.ListEarnings, sold)).attempts) == found
        page = await seller.ask(seller.books.ListEarnings, b.ListEarningsRequest(page_size=1))
        page = await seller.ask(
            seller.books.ListEarnings, b.ListEarningsRequest(page_token=page.next_page_token)
        )
        assert list(page.attempts) == earned[1:]
        # Of nobody else's jobs and hosts.
        assert not (await seller.ask(seller.books.ListCosts, b.ListCostsRequest())).jobs
        buyer = market.buyer
        assert not (await buyer.ask(buyer.books.ListEarnings, b.ListEarningsRequest())).attempts

        whole = await statement(buyer)
        assert [(x.kind, x.delta_micro, x.job_id) for x in whole.movements] == [
            ("deposit", 10_000_000, ""),
            ("hold", -30_000, good.job_id),
            ("release", 20_000, good.job_id),
            ("hold", -1_000_000, bad.job_id),
            ("refund", 10_000, bad.job_id),
            ("release", 990_000, bad.job_id),
        ]
        assert (whole.opening_micro, whole.closing_micro) == (0, (await buyer.wallet()).wallet_micro)
        first = await statement(buyer, page_size=4)
        rest = await statement(buyer, page_size=4, page_token=first.next_page_token)
        assert [*first.movements, *rest.movements] == list(whole.movements)
        assert (first.closing_micro, rest.next_page_token) == (rest.opening_micro, "")
        # A page's place holds, whatever the period.
        later = await statement(buyer, since_ms=whole.movements[4].posted_at_ms)
        assert list(later.movements) == list(whole.movements[4:])
        earlier = await statement(buyer, until_ms=whole.movements[4].posted_at_ms)
        assert list(earlier.movements) == list(whole.movements[:4])
        income = await statement(seller, purse=b.PURSE_EARNINGS)
        assert [x.delta_micro for x in income.movements] == [9_500, 9_500, -9_500]
        assert await refused(statement(seller, purse=9)) == "INVALID_FIELD"
        assert await refused(statement(seller, page_token="x")) == "INVALID_FIELD"
        assert await refused(statement(seller, since_ms=-1)) == "INVALID_FIELD"
        await market.audit()

    play_on_both(script)


def test_what_is_still_held_is_told(play: Play) -> None:
    async def script(market: Running) -> None:
        job = await market.buyer.submit(budget_micro=70_000)
        (cost,) = (await market.buyer.ask(market.buyer.books.ListCosts, b.ListCostsRequest())).jobs
        assert (cost.charged_micro, cost.held_micro) == (0, 70_000)
        await market.buyer.cancel(job.job_id)
        (cost,) = (await market.buyer.ask(market.buyer.books.ListCosts, b.ListCostsRequest())).jobs
        assert (cost.state, cost.held_micro) == (t.JOB_STATE_CANCELLED, 0)

    play(script)
