"""The real coordinator over real TLS, with agents that follow a script: paid jobs.

Every test ends with an audit that finds nothing and books that balance: see `running`.
"""

import asyncio
import itertools

import grpc.aio
import pytest

from runtime.evidence import GpuUse
from tests.support.running_coordinator import FEE_PPM, WINDOW_MS, Running
from tests.support.scripted_agent import Run, ScriptedAgent
from tests.support.scripts import Play, all_of, goes_on, kinds, read_logs, refusal, started
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t


def test_a_paid_job_from_submit_to_the_last_micro_credit(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        assert (await market.buyer.job(job.job_id)).state == t.JOB_STATE_RUNNING
        assert (await market.buyer.wallet()).held_micro == 1_000_000
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        ack = await agent.usage(run, run.record(10_000))
        assert ack.usage_number == 1
        assert (await agent.logs(run, run.writes(b"hello "), run.writes(b"world"))).log_offset == 11
        market.clock.advance(5_000)
        await agent.usage(run, run.record(15_000))
        await agent.beat(run.ended(exit_code=0))
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.cause, ended.exit_code) == (t.JOB_STATE_SUCCEEDED, t.CAUSE_BUYER, 0)
        assert ended.charged_micro == 15_000
        wallet = await market.buyer.wallet()
        assert (wallet.wallet_micro, wallet.held_micro) == (10_000_000 - 15_000, 0)
        earned = (await market.seller.wallet()).earnings_micro
        assert earned == 15_000 - 15_000 * FEE_PPM // 1_000_000
        bill = await market.buyer.bill(job.job_id)
        assert (bill.final, bill.charged_micro, bill.released_micro) == (True, 15_000, 985_000)
        assert [line.charge_micro for line in bill.attempts[0].lines] == [10_000, 5_000]
        events = await market.buyer.events(job.job_id)
        assert kinds(events) == [
            "SUBMITTED", "ASSIGNED", "PREPARING", "STARTED", "BILLED", "BILLED", "ATTEMPT_ENDED", "ENDED",
        ]  # fmt: skip
        await agent.until(lambda: agent.wanted(run) is None, "the attempt is let go")

    play_on_both(script)


def test_what_is_billed_starts_when_it_is_first_seen_running(play: Play) -> None:
    """Pulling an image and a start that nobody saw cost nothing."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job = await market.buyer.submit()
        run = await agent.taken()
        await agent.beat(run.prepares())
        market.clock.advance(30_000)
        await agent.beat(run.runs(4_000))  # it ran for four seconds already, says the host
        await goes_on(market, agent, run, 14_000, by_ms=10_000)
        await agent.usage(run, run.record(14_000))
        await agent.beat(run.ended())
        ended = await market.buyer.ended(job.job_id)
        assert ended.charged_micro == 10_000
        assert (ended.attempts[0].billed_ms, ended.attempts[0].unbilled_ms) == (10_000, 4_000)

    play(script)


@pytest.mark.parametrize("usage_first", [True, False])
def test_the_last_record_may_come_before_the_end_or_after_it(play: Play, usage_first: bool) -> None:
    """Either way the seller is paid to the last witnessed millisecond."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        market.clock.advance(7_000)
        last = run.record(7_000)
        if usage_first:
            await agent.usage(run, last)
            await agent.beat(run.ended())
        else:
            await agent.beat(run.ended())
            assert (await market.buyer.job(job.job_id)).state == t.JOB_STATE_RUNNING, "its usage is awaited"
            await agent.usage(run, last)
        assert (await market.buyer.ended(job.job_id)).charged_micro == 7_000

    play(script)


def test_usage_and_output_said_again_count_once(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 20_000, by_ms=20_000)
        first, second = run.record(8_000), run.record(20_000)
        assert (await agent.usage(run, first)).usage_number == 1
        assert (await agent.usage(run, first)).usage_number == 1
        assert (await agent.usage(run, first, second)).usage_number == 2
        assert (await agent.usage(run, first)).usage_number == 2, "it never goes back"
        one, two, three = run.writes(b"1"), run.writes(b"22"), run.writes(b"333")
        assert (await agent.logs(run, one)).log_offset == 1
        assert (await agent.logs(run, three)).log_offset == 1, "what leaves a hole waits"
        assert (await agent.logs(run, one, two)).log_offset == 3
        assert (await agent.logs(run, one, two, three)).log_offset == 6
        await agent.beat(run.ended())
        assert (await market.buyer.ended(job.job_id)).charged_micro == 20_000
        output = [answer async for answer in read_logs(market, job.job_id)]
        assert b"".join(a.chunk.chunk.data for a in output) == b"122333"
        assert output[-1].end.complete

    play_on_both(script)


def test_what_is_paid_grows_with_the_run_and_never_beyond_the_money(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        _, run = await started(market, agent, budget_micro=100_000)
        assert run.wanted.paid_through_ms == WINDOW_MS
        seen = []
        for second in (20, 40, 60):
            await goes_on(market, agent, run, second * 1_000, by_ms=20_000)
            await agent.until(lambda: agent.wanted(run), "it is still wanted")
            wanted = agent.wanted(run)
            assert wanted is not None
            seen.append(wanted.paid_through_ms)
        assert seen == [80_000, 100_000, 100_000]
        await goes_on(market, agent, run, 59_000, by_ms=1_000)
        wanted = agent.wanted(run)
        assert wanted is not None
        assert wanted.paid_through_ms == 100_000, "it never shrinks"

    play(script)


def test_a_buyer_is_warned_once_while_there_is_time_to_extend(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent, budget_micro=100_000)
        for before, second in itertools.pairwise((0, 45, 89, 91, 95, 100)):
            await goes_on(market, agent, run, second * 1_000, by_ms=(second - before) * 1_000)
        await agent.until(
            lambda: (wanted := agent.wanted(run)) and wanted.stop_reason == t.END_REASON_BUDGET_SPENT,
            "it is stopped",
        )
        await agent.beat(run.ended(143, t.END_REASON_PAID_THROUGH))
        await market.buyer.ended(job.job_id)
        events = await market.buyer.events(job.job_id)
        warnings = [event.text for event in events if event.kind == m.EVENT_KIND_BUDGET_LOW]
        assert warnings == ["the budget lasts for 9 s more; then the job is stopped"]

    play(script)


@pytest.mark.parametrize(
    ("spec", "reason", "run_ms"),
    [
        ({"budget_micro": 20_000}, t.END_REASON_BUDGET_SPENT, 20_000),
        ({"run_ms_max": 15_000}, t.END_REASON_TIME_LIMIT, 15_000),
    ],
    ids=["budget", "time"],
)
@pytest.mark.parametrize("by", ["coordinator", "agent"])
def test_a_job_ends_at_its_limits_and_costs_no_more(play: Play, spec, reason, run_ms, by) -> None:
    """Whether the coordinator sees the limit reached, or the agent's fuse burns first."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent, **spec)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        if by == "coordinator":
            await goes_on(market, agent, run, 21_000, by_ms=11_000)
            await agent.until(lambda: stop_reason(agent, run) == reason, "the end is asked for")
        else:
            market.clock.advance(11_000)
        await agent.usage(run, run.record(21_000))
        await agent.beat(run.ended(exit_code=143, reason=t.END_REASON_PAID_THROUGH))
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.cause) == (t.JOB_STATE_EXPIRED, t.CAUSE_BUYER)
        assert ended.attempts[0].end_reason == reason
        assert ended.charged_micro == run_ms
        assert ended.attempts[0].unbilled_ms == 21_000 - run_ms

    play(script)


def stop_reason(agent: ScriptedAgent, run: Run) -> t.EndReason.ValueType:
    wanted = agent.wanted(run)
    return wanted.stop_reason if wanted else t.END_REASON_UNSPECIFIED


def test_a_queued_job_is_cancelled_at_once(play: Play) -> None:
    async def script(market: Running) -> None:
        job = await market.buyer.submit()
        assert [limit.host_count for limit in job.limits] == []
        cancelled = await market.buyer.cancel(job.job_id)
        assert (cancelled.state, cancelled.cause) == (t.JOB_STATE_CANCELLED, t.CAUSE_BUYER)
        assert (await market.buyer.wallet()).wallet_micro == 10_000_000
        assert kinds(await market.buyer.events(job.job_id)) == ["SUBMITTED", "ENDED"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await market.buyer.cancel(job.job_id)
        assert refusal(caught.value) == "JOB_ENDED"

    play(script)


@pytest.mark.parametrize("at", ["assigned", "preparing", "running", "stopping"])
@pytest.mark.parametrize("goodbye", ["ended", "forgotten", "lost"])
def test_a_job_is_cancelled_wherever_it_stands(play: Play, at: str, goodbye: str) -> None:
    """However its host takes it: it ends as cancelled, costs nothing more, and begins nowhere again."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job = await market.buyer.submit(retries_max=3)
        run = await agent.taken()
        if at != "assigned":
            await agent.beat(run.prepares())
        if at in {"running", "stopping"}:
            await agent.beat(run.runs(0))
            await goes_on(market, agent, run, 10_000, by_ms=10_000)
        if at == "stopping":
            await market.buyer.cancel(job.job_id)
        cancelled = await market.buyer.cancel(job.job_id)
        assert cancelled.attempts[0].state == t.ATTEMPT_STATE_STOPPING
        await agent.until(lambda: stop_reason(agent, run) == t.END_REASON_CANCELLED, "the end is asked for")
        market.clock.advance(5_000)
        if goodbye == "ended":
            if at in {"running", "stopping"}:
                await agent.usage(run, run.record(15_000))
                await agent.beat(run.ended(exit_code=143))
            else:
                # Stopped in the middle of a pull, a host may well call it a failure of its own.
                await agent.beat(run.ended(None, t.END_REASON_START_FAILED))
        elif goodbye == "forgotten":
            await agent.beat()
        else:
            market.clock.advance(WINDOW_MS + 1_000)
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.cause) == (t.JOB_STATE_CANCELLED, t.CAUSE_BUYER)
        assert len(ended.attempts) == 1
        with_usage = goodbye == "ended" and at in {"running", "stopping"}
        assert ended.charged_micro == (10_000 if with_usage else 0)

    play(script)


def test_a_cancel_that_comes_after_the_end_changes_nothing(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        last = run.record(10_000)
        await agent.beat(run.ended(exit_code=0))
        await market.buyer.cancel(job.job_id)
        await agent.usage(run, last)
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.exit_code, ended.charged_micro) == (t.JOB_STATE_SUCCEEDED, 0, 10_000)

    play(script)


def test_a_job_waits_for_a_host_no_longer_than_it_was_to(play: Play) -> None:
    async def script(market: Running) -> None:
        job = await market.buyer.submit(queue_ms_max=30_000)
        market.clock.advance(31_000)
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.cause) == (t.JOB_STATE_EXPIRED, t.CAUSE_BUYER)
        assert "no host was found" in ended.detail

    play(script)


def test_a_watch_that_is_taken_up_again_loses_and_doubles_nothing(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        before = await market.buyer.events_until(job.job_id, m.EVENT_KIND_STARTED)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        await agent.usage(run, run.record(10_000))
        await agent.beat(run.ended())
        after = await market.buyer.events(job.job_id, after=before[-1].number)
        assert before + after == await market.buyer.events(job.job_id)
        billed = [event.bill_line for event in after if event.kind == m.EVENT_KIND_BILLED]
        assert billed == list((await market.buyer.bill(job.job_id)).attempts[0].lines)
        # It had hung for ever on whoever had seen the last event, but not the end of the stream.
        assert await market.buyer.events(job.job_id, after=after[-1].number) == []

    play(script)


def test_output_is_followed_across_a_retry_and_from_any_place(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job = await market.buyer.submit(retries_max=1)
        following = asyncio.create_task(all_of(read_logs(market, job.job_id, follow=True)))
        run = await agent.taken()
        await agent.beat(run.runs(0))
        await agent.logs(run, run.writes(b"first try\n"), run.writes(b"oops\n", t.LOG_STREAM_STDERR))
        await agent.beat(run.ended(None, t.END_REASON_GPU_LOST))
        other = await market.agent()
        again = await other.taken()
        await other.beat(again.runs(0))
        await other.logs(again, again.writes(b"second try\n"))
        await other.beat(again.ended(exit_code=0))
        output = await asyncio.wait_for(following, 10)
        data = [(a.chunk.attempt_id, a.chunk.chunk.stream, a.chunk.chunk.data) for a in output[:-1]]
        first, second = run.wanted.attempt_id, again.wanted.attempt_id
        assert data == [(first, 1, b"first try\n"), (first, 2, b"oops\n"), (second, 1, b"second try\n")]
        end = output[-1].end
        assert (end.attempt_id, end.complete, end.offset) == (second, True, 11)
        assert end.totals == again.totals()
        rest = await all_of(read_logs(market, job.job_id, attempt_id=first, offset=6))
        assert b"".join(a.chunk.chunk.data for a in rest) == b"try\noops\nsecond try\n"

    play(script)


def test_output_that_is_not_what_the_host_says_it_was_is_not_called_complete(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await agent.logs(run, run.writes(b"true"))
        totals = run.totals()
        totals.stdout_sha256 = bytes(32)
        await agent.beat(run.ended(log_totals=totals))
        await market.buyer.ended(job.job_id)
        output = await all_of(read_logs(market, job.job_id, follow=True))
        assert (output[0].chunk.chunk.data, output[-1].end.complete) == (b"true", False)

    play(script)


def test_a_long_bill_can_be_read(play: Play) -> None:
    """Three days of records came to more than a message could hold: nobody could see the bill."""

    async def script(market: Running) -> None:
        agent = await market.agent(gpu_count=16)
        job, run = await started(market, agent, gpus=t.GpuRequest(count=16))
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        uses = tuple(
            GpuUse(gpu_uuid=uuid, utilization_percent=100, memory_used_bytes=24 << 30)
            for uuid in run.wanted.gpu_uuids
        )
        for _ in range(10):
            await agent.usage(run, *[run.record(len(run.records) + 1, gpus=uses) for _ in range(128)])
        await agent.beat(run.ended())
        await market.buyer.ended(job.job_id)
        bill = await market.buyer.bill(job.job_id)
        assert bill.ByteSize() > 1 << 20
        assert len(bill.attempts[0].lines) == 1_280

    play(script)
