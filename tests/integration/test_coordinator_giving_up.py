"""Hosts that are there and do not come to an end. The simulation found each; this is its story."""

from tests.support.running_coordinator import Running
from tests.support.scripts import Play, all_of, goes_on, read_logs, started
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

MISSING_BYTES = 1_000_000


def test_a_host_that_never_says_that_it_stopped_does_not_keep_the_money(play_on_both: Play) -> None:
    """A seller went on saying that the container ran after the buyer had cancelled: the job never ended, and
    the budget stayed held for as long as that host was connected."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await market.buyer.cancel(job.job_id)
        for step in range(5):
            await goes_on(market, agent, run, step * 20_000, by_ms=20_000)
        assert (await market.buyer.job(job.job_id)).state == t.JOB_STATE_RUNNING, "it may have heard late"
        for _ in range(3):
            await goes_on(market, agent, run, 100_000, by_ms=20_000)
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.cause) == (t.JOB_STATE_CANCELLED, t.CAUSE_BUYER)
        assert (await market.buyer.wallet()).wallet_micro == 10_000_000 - ended.charged_micro
        assert agent.wanted(run) is None
        await market.audit()

    play_on_both(script)


def test_output_that_was_promised_and_never_sent_is_not_awaited_for_ever(play_on_both: Play) -> None:
    """A seller said that there was more output than it sent: whoever followed it waited for ever."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await agent.logs(run, run.writes(b"all there is"))
        end = run.ended()
        end.log_totals.stdout_bytes += MISSING_BYTES
        await agent.beat(end)
        await market.buyer.ended(job.job_id)
        for _ in range(8):
            market.clock.advance(20_000)
            await agent.beat(end)
        *chunks, last = await all_of(read_logs(market, job.job_id, follow=True))
        assert b"".join(answer.chunk.chunk.data for answer in chunks) == b"all there is"
        assert not last.end.complete

    play_on_both(script)


def test_what_a_lost_machine_still_has_is_not_called_all_there_was(play: Play) -> None:
    """A machine lost its power. Its agent, back, told the totals of what it had kept, and the buyer was told
    that the output was complete."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await agent.logs(run, run.writes(b"some of it"))
        await agent.beat(run.ended(None, t.END_REASON_HOST_LOST))
        ended: m.Job = await market.buyer.ended(job.job_id)
        assert ended.cause == t.CAUSE_HOST
        *_, last = await all_of(read_logs(market, job.job_id, follow=True))
        assert not last.end.complete

    play(script)


def test_a_cancel_stands_over_a_stop_that_would_begin_the_job_again(play_on_both: Play) -> None:
    """The host's claim had been refused, and its run was being stopped, when the buyer cancelled. The cancel
    was answered well; then the job began again on another host, and was billed."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent, retries_max=1)
        await market.agent()
        await agent.beat(run.runs(0, container_id="another"))
        await market.buyer.cancel(job.job_id)
        await agent.beat(run.ended(None, t.END_REASON_SUPERSEDED))
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, len(ended.attempts)) == (t.JOB_STATE_CANCELLED, 1)

    play_on_both(script)


def test_a_cancel_stands_while_the_last_usage_of_a_failed_run_is_awaited(play: Play) -> None:
    """The host had said that a GPU was lost, but not all of its usage had come, when the buyer cancelled."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent, retries_max=1)
        await market.agent()
        await agent.beat(run.ended(None, t.END_REASON_GPU_LOST, usage_number_last=1))
        await market.buyer.cancel(job.job_id)
        await goes_on(market, agent, run, 0, by_ms=0)
        await agent.usage(run, run.record(1))
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, len(ended.attempts)) == (t.JOB_STATE_CANCELLED, 1)

    play(script)
