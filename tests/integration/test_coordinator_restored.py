"""The coordinator comes back from a backup, and its hosts know more than it does."""

import sqlite3
from pathlib import Path

import pytest

from coordinator import app
from coordinator.services.restoration import Aftermath, aftermath
from coordinator.store.database import Database
from tests.support.running_coordinator import WINDOW_MS, Running, eventually
from tests.support.scripted_agent import Run, ScriptedAgent
from tests.support.scripts import Play, goes_on, kinds, started
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

LONG_MS = 300_000


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept.db"


def aftermath_of(market: Running) -> Aftermath:
    database = Database(app.open_database(market.settings), lambda _: None)
    try:
        (found,) = database.read(aftermath).result()
        return found
    finally:
        database.close()


async def restored(market: Running, kept: Path, *agents: ScriptedAgent, after_ms: int = LONG_MS) -> None:
    """So much after what happened last, and the agents come back."""
    for agent in agents:
        await agent.leave()
    market.clock.advance(after_ms)
    await market.restore(kept)
    market.clock.advance(1_000)
    for agent in agents:
        await agent.connect()


def host_events(market: Running) -> list[str]:
    with sqlite3.connect(market.settings.data_dir / "usance.db") as connection:
        rows = connection.execute("SELECT kind, text FROM event WHERE host_id IS NOT NULL ORDER BY number")
        return [f"{kind}: {text}" for kind, text in rows]


async def works(market: Running, agent: ScriptedAgent, run: Run, seconds: int) -> None:
    """So many records of a second each, seen and acknowledged."""
    for _ in range(seconds):
        run_ms = (run.records[-1].end_ms if run.records else 0) + 1_000
        await goes_on(market, agent, run, run_ms, by_ms=1_000)
        await agent.usage(run, run.record(run_ms))


def test_a_job_goes_on_and_what_nobody_saw_is_not_billed(play: Play, kept: Path) -> None:
    """Its host has been told that ten records are stored; the coordinator has four of them."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await works(market, agent, run, 4)
        market.backup(kept)
        await works(market, agent, run, 6)
        before = await market.buyer.events_until(job.job_id, m.EVENT_KIND_STARTED)
        await restored(market, kept, agent)
        wanted = agent.wanted(run)
        assert wanted is not None
        assert wanted.usage_number_acknowledged == 4, "by which its host knows"
        await agent.beat(run.runs(LONG_MS))
        await agent.usage(run, *run.records[4:])
        assert (await market.buyer.job(job.job_id)).charged_micro == 4_000
        assert aftermath_of(market).unbilled_ms == 6_000
        await goes_on(market, agent, run, LONG_MS + 20_000, by_ms=20_000)
        await agent.usage(run, run.record(30_000))
        await agent.beat(run.ended())
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.charged_micro) == (t.JOB_STATE_SUCCEEDED, 24_000)
        bill = await market.buyer.bill(job.job_id)
        assert [line.record.number for line in bill.attempts[0].lines] == list(range(1, 12))
        events = await market.buyer.events(job.job_id)
        assert "RESTORED" in kinds(events)
        numbers = [event.number for event in events]
        assert numbers == sorted(set(numbers))
        later = await market.buyer.events(job.job_id, after=before[-1].number + 1_000)
        assert kinds(later)[0] == "RESTORED", "who has read on meanwhile misses nothing"
        found = aftermath_of(market)
        assert (found.went_on, found.ended_unknown, found.awaited) == (1, 0, 0)
        told = [text for text in host_events(market) if text.startswith("restored: the market was restored")]
        assert len(told) == 1

    play(script)


def test_within_the_window_the_gap_is_witnessed_from_both_sides(play: Play, kept: Path) -> None:
    """A restore is a restart, as far as sightings go: what lies between two of them counts."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await works(market, agent, run, 4)
        market.backup(kept)
        await works(market, agent, run, 6)
        await restored(market, kept, agent, after_ms=WINDOW_MS // 2)
        await agent.beat(run.runs(11_000 + WINDOW_MS // 2))
        await agent.usage(run, *run.records[4:])
        assert (await market.buyer.job(job.job_id)).charged_micro == 10_000
        await agent.beat(run.ended())
        await market.buyer.ended(job.job_id)

    play(script)


def test_what_its_host_has_forgotten_since_ends_and_begins_nowhere_again(play: Play, kept: Path) -> None:
    """It may have ended well. The host is not blamed, and the buyer is not charged for another run."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent, retries_max=3)
        await works(market, agent, run, 2)
        market.backup(kept)
        await works(market, agent, run, 2)
        await agent.beat(run.ended())
        assert (await market.buyer.ended(job.job_id)).state == t.JOB_STATE_SUCCEEDED
        await restored(market, kept, agent)
        await agent.beat()
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.charged_micro) == (t.JOB_STATE_FAILED, 2_000)
        (attempt,) = ended.attempts
        assert (attempt.end_reason, attempt.cause) == (t.END_REASON_RESTORED, t.CAUSE_PLATFORM)
        assert (await market.buyer.wallet()).wallet_micro == 10_000_000 - 2_000
        assert not [text for text in host_events(market) if text.startswith("refused_claim")]
        assert aftermath_of(market).ended_unknown == 1

    play(script)


def test_what_was_given_out_since_is_ended_and_told_and_its_gpu_is_sold_once(play: Play, kept: Path) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        market.backup(kept)
        lost, run = await started(market, agent)
        await works(market, agent, run, 5)
        await restored(market, kept, agent)
        assert agent.wanted(run) is None, "it is to end"
        agent.answered_for_nothing()
        await agent.beat(run.runs(LONG_MS + 6_000))

        async def is_told() -> bool:
            return any("not known here" in text for text in host_events(market))

        await eventually(is_told, "it is told")
        (told,) = [text for text in host_events(market) if "not known here" in text]
        assert "306.0 s, which stay unbilled" in told
        with pytest.raises(Exception, match="NOT_FOUND"):
            await market.buyer.job(lost.job_id)
        assert (await market.buyer.wallet()).wallet_micro == 10_000_000
        found = aftermath_of(market)
        assert [one.attempt_id for one in found.strangers] == [run.wanted.attempt_id]
        assert found.stranger_ms == LONG_MS + 6_000
        again, second = await started(market, agent)
        assert second.wanted.attempt_id != run.wanted.attempt_id, "no epoch is given twice"
        await agent.beat(second.ended())
        await market.buyer.ended(again.job_id)
        await market.host_is(agent.host_id, t.HOST_STATE_ONLINE)

    play(script)


def test_a_cancel_that_was_lost_stands_and_nothing_after_it_is_charged(play: Play, kept: Path) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await works(market, agent, run, 3)
        market.backup(kept)
        await market.buyer.cancel(job.job_id)
        await restored(market, kept, agent, after_ms=5_000)
        # The coordinator of before had said so, and its host knows it.
        run.record(9_000)
        await agent.beat(run.is_in(t.ATTEMPT_STATE_STOPPING, 9_000))
        await agent.beat(run.ended(None, t.END_REASON_CANCELLED))
        await agent.usage(run, *run.records[3:])
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.charged_micro) == (t.JOB_STATE_CANCELLED, 3_000)

    play(script)


def test_usage_that_nobody_has_any_more_is_no_lie(play: Play, kept: Path) -> None:
    """Its host keeps what was acknowledged for a week. Longer ago, nobody can tell what the job has cost."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await works(market, agent, run, 2)
        market.backup(kept)
        await works(market, agent, run, 4)
        await restored(market, kept, agent)
        await agent.beat(run.runs(LONG_MS))
        await agent.claim(run.wanted.attempt_id, run.wanted.epoch, *run.records[5:])
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.charged_micro) == (t.JOB_STATE_FAILED, 2_000)
        assert ended.attempts[0].end_reason == t.END_REASON_RESTORED
        assert not [text for text in host_events(market) if text.startswith("refused_claim")]

    play(script)


def test_who_never_comes_back_is_not_blamed(play: Play, kept: Path) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent, retries_max=2)
        await works(market, agent, run, 2)
        market.backup(kept)
        await agent.leave()
        await restored(market, kept)

        async def is_over() -> bool:
            market.clock.advance(WINDOW_MS // 10)
            return (await market.buyer.job(job.job_id)).state == t.JOB_STATE_FAILED

        await eventually(is_over, "its host is given up")
        ended = await market.buyer.job(job.job_id)
        assert ended.attempts[0].end_reason == t.END_REASON_RESTORED
        assert ended.charged_micro == 2_000

    play(script)


def test_what_waited_then_runs_and_its_buyer_is_told_that_it_may_have(play: Play, kept: Path) -> None:
    async def script(market: Running) -> None:
        job = await market.buyer.submit()
        market.backup(kept)
        await restored(market, kept)
        agent = await market.agent()
        run = await agent.taken()
        assert run.wanted.spec.name == "train"
        events = await market.buyer.events_until(job.job_id, m.EVENT_KIND_ASSIGNED)
        (told,) = [event for event in events if event.kind == m.EVENT_KIND_RESTORED]
        assert told.text.endswith("whether it has run since, nobody knows")
        await agent.beat(run.ended())
        await market.buyer.ended(job.job_id)

    play(script)
