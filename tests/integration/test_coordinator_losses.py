"""Hosts fall silent, come back, restart; so does the coordinator. The bill is right all the same."""

import pytest

from coordinator.settings import Settings
from tests.support.running_coordinator import WINDOW_MS, Running
from tests.support.scripted_agent import ScriptedAgent
from tests.support.scripts import Play, goes_on, kinds, refusal, started
from usance.v1 import host_pb2 as h
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t


def test_a_lost_host_is_paid_to_what_was_witnessed_and_the_rest_goes_back_at_once(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        # They come together: one transfer pays for all, and what goes back of each goes back through it.
        await agent.usage(run, run.record(3_000), run.record(7_000), run.record(10_000))
        lines = (await market.buyer.bill(job.job_id)).attempts[0].lines
        assert [line.charge_micro for line in lines] == [3_000, 4_000, 3_000]
        assert len({line.transfer_id for line in lines}) == 1
        await agent.leave()
        market.clock.advance(4_000)
        await market.host_is(agent.host_id, t.HOST_STATE_SUSPECT)
        assert (await market.buyer.job(job.job_id)).state == t.JOB_STATE_RUNNING, "it may come back"
        market.clock.advance(WINDOW_MS)
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.cause) == (t.JOB_STATE_FAILED, t.CAUSE_HOST)
        assert ended.attempts[0].end_reason == t.END_REASON_HOST_LOST
        assert ended.charged_micro == 10_000
        # Less than ten minutes of it were paid, and the host was at fault: all of it goes back, as credits.
        bill = await market.buyer.bill(job.job_id)
        assert (bill.charged_micro, bill.credited_micro) == (10_000, 10_000)
        assert (await market.buyer.wallet()).wallet_micro == 10_000_000
        assert (await market.seller.wallet()).earnings_micro == 0
        await market.host_is(agent.host_id, t.HOST_STATE_LOST)

    play_on_both(script)


def test_a_job_of_a_lost_host_begins_anew_elsewhere_with_what_money_is_left(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent, retries_max=1, budget_micro=30_000, queue_ms_max=30_000)
        other = await market.agent()
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        await agent.usage(run, run.record(10_000))
        await agent.leave()
        # Longer than the job was to wait for a host: that time counts anew.
        market.clock.advance(WINDOW_MS + 1_000)
        await other.beat()
        again = await other.taken()
        assert again.wanted.epoch == 2
        await other.beat(again.runs(0))
        await goes_on(market, other, again, 19_000, by_ms=19_000)
        await other.usage(again, again.record(19_000))
        await other.beat(again.ended())
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.charged_micro) == (t.JOB_STATE_SUCCEEDED, 29_000)
        bill = await market.buyer.bill(job.job_id)
        assert [attempt.run_ms_affordable for attempt in bill.attempts] == [30_000, 20_000]
        assert [attempt.host_id for attempt in bill.attempts] == [agent.host_id, other.host_id]
        events = kinds(await market.buyer.events(job.job_id))
        assert events.count("REQUEUED") == 1
        assert events[-1] == "ENDED"

    play_on_both(script)


def test_a_host_that_comes_back_too_late_is_told_to_drop_its_run(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await agent.leave()
        market.clock.advance(WINDOW_MS + 1_000)
        await market.buyer.ended(job.job_id)
        await agent.connect()
        assert agent.wanted(run) is None
        market.clock.advance(1_000)
        await agent.beat(run.runs(WINDOW_MS + 2_000))
        assert (await agent.usage(run, run.record(10_000))).usage_number == 0, "it is not taken in"
        assert (await market.buyer.job(job.job_id)).charged_micro == 0
        await market.host_is(agent.host_id, t.HOST_STATE_ONLINE)

    play(script)


def test_a_cut_that_is_mended_in_time_costs_the_seller_nothing(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await agent.leave()
        market.clock.advance(WINDOW_MS - 1_000)
        await agent.connect()
        await agent.beat(run.runs(WINDOW_MS - 1_000))
        await agent.usage(run, run.record(30_000), run.record(WINDOW_MS - 1_000))
        await agent.beat(run.ended())
        assert (await market.buyer.ended(job.job_id)).charged_micro == WINDOW_MS - 1_000

    play(script)


def test_a_second_connection_supersedes_the_first(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        newer = ScriptedAgent(market.settings.hosts, agent.identity)
        market.agents.append(newer)
        await newer.connect()
        await agent.over()
        assert refusal(agent.error) == "SUPERSEDED"
        assert newer.wanted(run), "the newer one has it all"
        await market.host_is(agent.host_id, t.HOST_STATE_ONLINE)
        await goes_on(market, newer, run, 10_000, by_ms=10_000)
        await newer.usage(run, run.record(10_000))
        await newer.beat(run.ended())
        assert (await market.buyer.ended(job.job_id)).charged_micro == 10_000

    play(script)


def test_a_host_that_no_longer_has_its_run_ends_it_for_its_own_cause(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 5_000, by_ms=5_000)
        await agent.usage(run, run.record(5_000))
        await agent.beat()
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.cause) == (t.JOB_STATE_FAILED, t.CAUSE_HOST)
        assert ended.attempts[0].end_reason == t.END_REASON_HOST_FORGOT
        assert ended.charged_micro == 5_000

    play(script)


def test_what_was_not_begun_only_has_to_be_told_again(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job = await market.buyer.submit()
        run = await agent.taken()
        await agent.beat()
        await agent.beat(run.prepares())
        await agent.beat()
        await agent.until(lambda: agent.wanted(run), "it is still wanted")
        await agent.beat(run.runs(0))
        assert (await market.buyer.job(job.job_id)).state == t.JOB_STATE_RUNNING

    play(script)


def test_a_host_that_never_takes_a_job_up_does_not_keep_it(play: Play) -> None:
    """It had kept job, money and GPU for as long as it went on beating."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job = await market.buyer.submit()
        await agent.taken()
        for _ in range(4):
            market.clock.advance(WINDOW_MS // 4 + 500)
            await agent.beat()
        ended = await market.buyer.ended(job.job_id)
        assert ended.attempts[0].end_reason == t.END_REASON_START_FAILED
        assert (ended.cause, ended.charged_micro) == (t.CAUSE_HOST, 0)

    play(script)


def test_a_host_that_was_restarted_is_paid_for_the_time_before(play: Play) -> None:
    """Its honest report of what it had held was taken for a lie."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        await agent.leave()
        market.clock.advance(20_000)
        agent.boot_id = "boot-2"
        await agent.connect()
        await agent.beat(run.runs(10_000))  # before it has looked around
        await agent.usage(run, run.record(12_000))
        await agent.beat(run.ended(None, t.END_REASON_HOST_LOST))
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.cause) == (t.JOB_STATE_FAILED, t.CAUSE_HOST)
        assert ended.charged_micro == 10_000, "to what was witnessed before the restart"
        assert "REFUSED_CLAIM" not in kinds(await market.buyer.events(job.job_id))

    play(script)


def test_an_end_whose_usage_never_comes_is_final_after_the_window(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        await agent.beat(run.ended(exit_code=0, usage_number_last=1))
        for _ in range(4):
            market.clock.advance(WINDOW_MS // 4 + 500)
            await agent.beat(run.ended(exit_code=0, usage_number_last=1))
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.charged_micro) == (t.JOB_STATE_SUCCEEDED, 0)

    play(script)


@pytest.mark.parametrize("reboots", [False, True])
def test_the_coordinators_own_absence_is_not_the_hosts(play: Play, reboots: bool) -> None:
    """The window begins anew when it is back, and time that it did not see is bridged when it was short."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        await agent.beat(run.ended(exit_code=0, usage_number_last=1))
        await market.halt()
        await agent.over()
        market.clock.advance(3 * WINDOW_MS)
        if reboots:
            market.clock.reboot()
        await market.serve()
        market.clock.advance(WINDOW_MS // 2)
        await agent.connect()
        await agent.usage(run, run.record(10_000))
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.charged_micro) == (t.JOB_STATE_SUCCEEDED, 10_000)

    play(script)


def test_a_restart_in_the_middle_of_a_run_loses_nothing(play_on_both: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        first = run.record(10_000)
        await agent.usage(run, first)
        await agent.logs(run, run.writes(b"before "))
        await market.halt()
        await agent.over()
        assert agent.drained, "it was asked to come back"
        market.clock.advance(20_000)
        await market.serve()
        await agent.connect()
        wanted = agent.wanted(run)
        assert wanted is not None
        assert (wanted.usage_number_acknowledged, wanted.log_offset_acknowledged) == (1, 7)
        await agent.beat(run.runs(30_000))
        await agent.usage(run, first, run.record(30_000))
        await agent.logs(run, run.writes(b"after"))
        await agent.beat(run.ended())
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.charged_micro) == (t.JOB_STATE_SUCCEEDED, 30_000)

    play_on_both(script)


@pytest.mark.parametrize("jump_ms", [-3_600_000, 3_600_000])
def test_a_jump_of_the_wall_clock_changes_no_bill_and_ends_nothing(play: Play, jump_ms: int) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        market.clock.jump_wall(jump_ms)
        await goes_on(market, agent, run, 20_000, by_ms=10_000)
        await agent.beat(run.ended(exit_code=0, usage_number_last=1))
        market.clock.jump_wall(jump_ms)
        market.clock.advance(2_000)
        await agent.usage(run, run.record(20_000))
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.charged_micro) == (t.JOB_STATE_SUCCEEDED, 20_000)

    play(script)


def test_a_host_that_the_database_does_not_know_must_enrol_anew(play: Play, template: Settings) -> None:
    """As after a restore from an old backup."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        await agent.leave()
        await market.halt()
        for name in ("usance.db", "usance.db-wal", "usance.db-shm"):
            (market.settings.data_dir / name).unlink(missing_ok=True)
        (market.settings.data_dir / "usance.db").write_bytes((template.data_dir / "usance.db").read_bytes())
        await market.serve()
        with pytest.raises(AssertionError, match="enrol it anew"):
            await agent.connect()
        assert refusal(agent.error) == "UNAUTHENTICATED"

    play(script)


def test_who_begins_without_hello_is_refused(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        await agent.leave()
        agent.hello = lambda: agent.say(h.SynchronizeRequest(beat=h.Beat(number=1)))  # type: ignore[method-assign]
        with pytest.raises(AssertionError, match="hello is the first message"):
            await agent.connect()
        assert refusal(agent.error) == "INVALID_FIELD"

    play(script)


def test_a_job_is_not_given_to_a_host_that_failed_it(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job = await market.buyer.submit(retries_max=2)
        run = await agent.taken()
        await agent.beat(run.ended(None, t.END_REASON_START_FAILED))
        await market.buyer.events_until(job.job_id, m.EVENT_KIND_REQUEUED)
        waiting = await market.buyer.job(job.job_id)
        assert waiting.state == t.JOB_STATE_QUEUED
        assert [(limit.limit, limit.host_count) for limit in waiting.limits] == [
            ("failed this job before", 1)
        ]
        await market.buyer.cancel(job.job_id)

    play(script)
