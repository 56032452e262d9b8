"""Spending caps, prices, payouts, and the operator's view of the whole: the real coordinator."""

from typing import Any

from runtime.ids import new_uuid
from tests.integration.test_coordinator_books import refused, statement
from tests.support.running_coordinator import Person, Running, job_spec
from tests.support.scripts import Play, goes_on, started
from usance.v1 import books_pb2 as b
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t


def set_cap(person: Person, month_micro: int, *, request_id: str = "", percent: int = 0) -> Any:
    request = b.SetSpendingCapRequest(
        request_id=request_id or str(new_uuid()), month_micro=month_micro, alert_percent=percent
    )
    return person.ask(person.books.SetSpendingCap, request)


async def cap_of(person: Person) -> b.SpendingCap:
    found: b.SpendingCap = (await person.ask(person.books.GetSpendingCap, b.GetSpendingCapRequest())).cap
    return found


def submit(person: Person, budget_micro: int, request_id: str = "") -> Any:
    spec = job_spec(budget_micro=budget_micro)
    request = m.SubmitJobRequest(request_id=request_id or str(new_uuid()), spec=spec)
    return person.ask(person.market.SubmitJob, request)


def extend(person: Person, job_id: str, budget_micro_more: int) -> Any:
    request = m.ExtendJobRequest(
        request_id=str(new_uuid()), job_id=job_id, budget_micro_more=budget_micro_more
    )
    return person.ask(person.market.ExtendJob, request)


def test_no_job_goes_beyond_the_spending_cap(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        buyer, request_id = market.buyer, str(new_uuid())
        assert (await cap_of(buyer)).month_micro == 0
        for _ in range(2):
            cap = (await set_cap(buyer, 3_000_000, request_id=request_id)).cap
            assert (cap.month_micro, cap.alert_percent, cap.used_micro) == (3_000_000, 80, 0)
        assert await refused(set_cap(buyer, 1, request_id=request_id)) == "REQUEST_ID_REUSED"
        assert cap.month_began_at_ms <= market.clock.wall_ms() < cap.month_ends_at_ms
        # A job counts with its whole budget, and is told of when little is left.
        submitted = str(new_uuid())
        first = await submit(buyer, 2_000_000, submitted)
        assert list(first.notices) == []
        assert await refused(submit(buyer, 1_000_001)) == "SPENDING_CAP"
        assert await refused(extend(buyer, first.job.job_id, 1_000_001)) == "SPENDING_CAP"
        await extend(buyer, first.job.job_id, 400_000)
        (notice,) = (await submit(buyer, 600_000)).notices
        assert notice.startswith("100 % of your spending cap for ")
        # Asked again, what was taken in is taken in.
        assert (await submit(buyer, 2_000_000, submitted)).job.job_id == first.job.job_id
        assert await refused(submit(buyer, 1)) == "SPENDING_CAP"
        # What it did not use is free again.
        await buyer.cancel(first.job.job_id)
        assert (await cap_of(buyer)).used_micro == 600_000
        # Another month, and no cap at all.
        market.clock.advance(cap.month_ends_at_ms - market.clock.wall_ms())
        assert (await cap_of(buyer)).used_micro == 0
        await set_cap(buyer, 0)
        assert (await cap_of(buyer)).month_micro == 0
        await submit(buyer, 3_500_000)
        await market.audit()

    play_on_both(script)


def test_a_cap_counts_what_jobs_cost_less_what_came_back(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        buyer = market.buyer
        await set_cap(buyer, 100_000, percent=1)
        agent = await market.agent()
        for run_ms in (10_000, 20_000):
            job, run = await started(market, agent, budget_micro=30_000)
            await goes_on(market, agent, run, run_ms, by_ms=run_ms)
            await agent.usage(run, run.record(run_ms))
            await agent.beat(run.ended(None, t.END_REASON_GPU_LOST) if run_ms == 20_000 else run.ended())
            await buyer.ended(job.job_id)
        assert (await buyer.bill(job.job_id)).credited_micro == 20_000
        cap = await cap_of(buyer)
        assert (cap.used_micro, cap.alert_percent) == (10_000, 1)

    play_on_both(script)


def test_others_are_not_bound_by_a_cap(play: Play) -> None:
    async def script(market: Running) -> None:
        other = await market.account("other", t.ROLE_BUYER, deposit_micro=5_000_000)
        await set_cap(market.buyer, 1)
        await submit(other, 5_000_000)
        assert await refused(submit(market.buyer, 2)) == "SPENDING_CAP"

    play(script)


def test_prices_are_for_everybody(play: Play) -> None:
    async def script(market: Running) -> None:
        await market.agent()
        for person in (market.buyer, market.seller, market.operator):
            (price,) = (await person.ask(person.books.ListPrices, b.ListPricesRequest())).prices
            assert price.gpu_hour_price_micro_min == price.gpu_hour_price_micro_max > 0
            assert price.gpu_count == price.gpu_count_free > 0

    play(script)


def withdraw(person: Person, amount_micro: int, *, request_id: str = "", **wanted: Any) -> Any:
    request = b.WithdrawRequest(
        **{
            "request_id": request_id or str(new_uuid()),
            "account_name": "seller",
            "amount_micro": amount_micro,
            "reason": "by bank",
            **wanted,
        }
    )
    return person.ask(person.operations.Withdraw, request)


def test_what_was_paid_out_is_taken_from_its_purse_once(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        operator = market.operator
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        await agent.usage(run, run.record(10_000))
        await agent.beat(run.ended())
        await market.buyer.ended(job.job_id)
        request_id = str(new_uuid())
        left = [(await withdraw(operator, 9_000, request_id=request_id)).balance_micro for _ in range(2)]
        assert left == [500, 500]
        assert (await market.seller.wallet()).earnings_micro == 500
        movement = (await statement(market.seller, purse=b.PURSE_EARNINGS)).movements[-1]
        assert (movement.kind, movement.delta_micro, movement.reason) == ("withdraw", -9_000, "by bank")
        assert await refused(withdraw(operator, 9_001, request_id=request_id)) == "REQUEST_ID_REUSED"
        assert await refused(withdraw(operator, 501)) == "INSUFFICIENT_FUNDS"
        assert await refused(withdraw(operator, 1, account_name="nobody")) == "NOT_FOUND"
        assert await refused(withdraw(operator, 1, purse=9)) == "INVALID_FIELD"
        assert await refused(withdraw(market.seller, 1)) == "FORBIDDEN"
        answer = await withdraw(operator, 1_000_000, account_name="buyer", purse=b.PURSE_WALLET)
        assert answer.balance_micro == (await market.buyer.wallet()).wallet_micro == 8_990_000
        await market.audit()

    play_on_both(script)


def test_the_operator_sees_all_hosts_and_how_the_market_is_doing(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        operator = market.operator
        ids = sorted([(await market.agent()).host_id for _ in range(2)])

        async def hosts(**wanted: Any) -> Any:
            return await operator.ask(operator.operations.ListAllHosts, b.ListAllHostsRequest(**wanted))

        page = await hosts(page_size=1)
        rest = await hosts(page_size=1, page_token=page.next_page_token)
        assert [each.host.host_id for each in (*page.hosts, *rest.hosts)] == ids
        assert {each.account_name for each in (await hosts()).hosts} == {"seller"}
        assert not rest.next_page_token
        seller = market.seller
        pause = m.PauseHostRequest(request_id=str(new_uuid()), host_id=ids[0])
        await seller.ask(seller.sells.PauseHost, pause)
        assert [each.host.host_id for each in (await hosts(state=t.HOST_STATE_PAUSED)).hosts] == ids[:1]
        assert await refused(hosts(state=99)) == "INVALID_FIELD"
        await market.buyer.submit(gpus=t.GpuRequest(count=1, model="no such"))
        health = await operator.ask(operator.operations.GetHealth, b.GetHealthRequest())
        assert [(each.state, each.count) for each in health.hosts] == [
            (t.HOST_STATE_ONLINE, 1),
            (t.HOST_STATE_PAUSED, 1),
        ]
        assert [(each.state, each.count) for each in health.jobs] == [(t.JOB_STATE_QUEUED, 1)]
        assert health.queued_since_at_ms == market.clock.wall_ms()
        assert health.transfers >= 2
        assert health.sum_micro == 0
        assert health.database in {"sqlite", "postgresql"}

    play_on_both(script)


def test_the_operator_gives_back_no_more_than_a_job_has_cost(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        operator, buyer = market.operator, market.buyer
        agent = await market.agent()
        job, run = await started(market, agent, budget_micro=30_000)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        await agent.usage(run, run.record(10_000))
        await agent.beat(run.ended())
        await buyer.ended(job.job_id)

        def refund(amount_micro: int, request_id: str = "", **wanted: Any) -> Any:
            request = b.RefundJobRequest(
                **{
                    "request_id": request_id or str(new_uuid()),
                    "job_id": job.job_id,
                    "amount_micro": amount_micro,
                    "reason": "we slept",
                    **wanted,
                }
            )
            return operator.ask(operator.operations.RefundJob, request)

        request_id = str(new_uuid())
        for _ in range(2):
            answer = await refund(6_000, request_id)
            assert (answer.refunded_micro, answer.cost_micro) == (6_000, 4_000)
        assert await refused(refund(1, request_id)) == "REQUEST_ID_REUSED"
        assert await refused(refund(4_001)) == "INVALID_FIELD"
        assert await refused(refund(1, job_id="job_never_was")) == "NOT_FOUND"
        assert (await refund(4_000, reason="and again")).cost_micro == 0
        bill = await buyer.bill(job.job_id)
        assert (bill.charged_micro, bill.refunded_micro, bill.credited_micro) == (10_000, 10_000, 0)
        assert [(each.amount_micro, each.reason) for each in bill.refunds] == [
            (6_000, "we slept"),
            (4_000, "and again"),
        ]
        (cost,) = (await buyer.ask(buyer.books.ListCosts, b.ListCostsRequest())).jobs
        assert (cost.charged_micro, cost.refunded_micro) == (10_000, 10_000)
        assert (await buyer.wallet()).wallet_micro == 10_000_000
        # The seller keeps what it earned: the platform pays.
        assert (await market.seller.wallet()).earnings_micro == 9_500
        last = (await statement(buyer)).movements[-1]
        assert (last.kind, last.delta_micro, last.job_id) == ("adjustment", 4_000, job.job_id)
        await market.audit()

    play_on_both(script)
