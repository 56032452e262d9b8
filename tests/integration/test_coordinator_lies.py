"""A hostile host tries every lie. None gains it a micro-credit, and each leaves an event."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from runtime.evidence import GpuUse, UsageRecord, chain_start, make_record
from tests.support.running_coordinator import WINDOW_MS, Running, eventually
from tests.support.scripted_agent import Run, ScriptedAgent
from tests.support.scripts import Play, goes_on, kinds, refusal, started
from usance.v1 import host_pb2 as h
from usance.v1 import types_pb2 as t

HONEST_MS = 10_000


def extra(run: Run, end_ms: int, **changes) -> UsageRecord:
    """A record that would follow, as the liar makes it; the script's own chain stays honest."""
    last = run.records[-1]
    plain = {
        "previous_digest": last.digest,
        "number": last.number + 1,
        "start_ms": last.end_ms,
        "end_ms": end_ms,
        "gpus": (),
    }
    return make_record(**{**plain, **changes})


def foreign(run: Run) -> UsageRecord:
    return extra(run, 15_000, gpus=(GpuUse(gpu_uuid="GPU-of-somebody-else"),))


def impossible(run: Run) -> UsageRecord:
    return extra(run, 15_000, gpus=(GpuUse(gpu_uuid=run.wanted.gpu_uuids[0], utilization_percent=250),))


USAGE_LIES = {
    "leaves one out": lambda run: extra(run, 15_000, number=3),
    "starts a chain of its own": lambda run: extra(
        run, 15_000, previous_digest=chain_start(run.wanted.attempt_id, run.wanted.epoch)
    ),
    "has a digest of something else": lambda run: replace(extra(run, 12_000), end_ms=15_000),
    "overlaps": lambda run: extra(run, 15_000, start_ms=5_000),
    "leaves a hole": lambda run: extra(run, 15_000, start_ms=12_000),
    "is longer than a record may be": lambda run: extra(run, HONEST_MS + 60_001),
    "is of a GPU that it does not have": foreign,
    "has a figure that can't be": impossible,
    "claims more time than has passed": lambda run: extra(run, 40_000),
}
BEAT_LIES = {
    "another container": lambda run: run.runs(15_000, container_id="container-2"),
    "more run time than has passed": lambda run: run.runs(10**12),
    "an end of another container": lambda run: run.ended(container_id="container-2"),
    "an end after more time than has passed": lambda run: run.is_in(
        t.ATTEMPT_STATE_ENDED,
        10**12,
        end_reason=t.END_REASON_PAID_THROUGH,
        usage_number_last=1,
        log_totals=run.totals(),
    ),
}


def lying(market_script: Callable[[Running, ScriptedAgent, Run], Awaitable[None]]):
    """An honest start of ten seconds, then the lie: by the rule for a host at fault, even those go back."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, HONEST_MS, by_ms=HONEST_MS)
        await agent.usage(run, run.record(HONEST_MS))
        market.clock.advance(5_000)
        await market_script(market, agent, run)
        await agent.until(lambda: stopped(agent, run) == t.END_REASON_CLAIM_REFUSED, "it is stopped")
        # It goes on as if nothing was, and then blames the buyer.
        market.clock.advance(5_000)
        await agent.beat(run.runs(20_000))
        assert (await agent.usage(run, run.record(20_000))).usage_number == 1
        await agent.beat(run.ended(137, t.END_REASON_OUT_OF_MEMORY))
        ended = await market.buyer.ended(job.job_id)
        assert (ended.state, ended.cause) == (t.JOB_STATE_FAILED, t.CAUSE_HOST)
        assert ended.attempts[0].end_reason == t.END_REASON_CLAIM_REFUSED
        assert ended.charged_micro == HONEST_MS
        assert (await market.buyer.bill(job.job_id)).credited_micro == HONEST_MS
        assert (await market.seller.wallet()).earnings_micro == 0
        assert kinds(await market.buyer.events(job.job_id)).count("REFUSED_CLAIM") == 1

    return script


def stopped(agent: ScriptedAgent, run: Run) -> t.EndReason.ValueType:
    wanted = agent.wanted(run)
    return wanted.stop_reason if wanted else t.END_REASON_UNSPECIFIED


@pytest.mark.parametrize("lie", USAGE_LIES)
def test_usage_that_is_a_lie_earns_nothing(play: Play, lie: str) -> None:
    async def tell(market: Running, agent: ScriptedAgent, run: Run) -> None:
        ack = await agent.usage(run, USAGE_LIES[lie](run))
        assert ack.usage_number == 1

    play(lying(tell))


@pytest.mark.parametrize("lie", BEAT_LIES)
def test_a_beat_that_is_a_lie_earns_nothing(play: Play, lie: str) -> None:
    async def tell(market: Running, agent: ScriptedAgent, run: Run) -> None:
        await agent.beat(BEAT_LIES[lie](run))

    play(lying(tell))


def test_what_was_true_before_a_lie_in_the_same_message_is_kept(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 20_000, by_ms=20_000)
        first = run.record(10_000)
        assert (await agent.usage(run, first, extra(run, 5_000))).usage_number == 1
        await agent.beat(run.ended(usage_number_last=0))
        assert (await market.buyer.ended(job.job_id)).charged_micro == 10_000

    play(script)


def test_a_lie_of_one_attempt_is_not_its_neighbours(play: Play) -> None:
    """What comes in one message is taken in attempt by attempt, and answered in one."""

    async def script(market: Running) -> None:
        agent = await market.agent(gpu_count=2)
        honest_job, honest = await started(market, agent)
        false_job = await market.buyer.submit()
        await agent.until(lambda: agent.desired is not None and len(agent.desired.attempts) == 2, "both are")
        assert agent.desired is not None
        (wanted,) = (a for a in agent.desired.attempts if a.attempt_id != honest.wanted.attempt_id)
        false = Run(wanted, "container-2")
        await agent.beat(honest.runs(0), false.runs(0))
        market.clock.advance(10_000)
        await agent.beat(honest.runs(10_000), false.runs(10_000))
        acks = await agent.usages((honest, honest.record(10_000)), (false, false.record(10_000)))
        assert [ack.usage_number for ack in acks] == [1, 1]
        assert agent.acknowledged_together == 1
        market.clock.advance(5_000)
        acks = await agent.usages((false, extra(false, 40_000)), (honest, honest.record(15_000)))
        assert [ack.usage_number for ack in acks] == [1, 2]
        await agent.until(lambda: stopped(agent, false) == t.END_REASON_CLAIM_REFUSED, "it is stopped")
        await agent.beat(honest.ended(), false.ended())
        assert (await market.buyer.ended(honest_job.job_id)).charged_micro == 15_000
        assert (await market.buyer.bill(false_job.job_id)).credited_micro == 10_000
        assert (await market.seller.wallet()).earnings_micro == 14_250

    play(script)


def test_usage_that_comes_in_too_much_at_once_ends_the_stream(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        _, run = await started(market, agent)
        await agent.say(
            h.SynchronizeRequest(
                usages=h.UsageReports(
                    reports=[
                        h.UsageReport(
                            attempt_id=run.wanted.attempt_id, epoch=n, records=[t.UsageRecord()] * 100
                        )
                        for n in range(3)
                    ]
                )
            )
        )
        await agent.over()
        assert refusal(agent.error) == "INVALID_FIELD"

    play(script)


def test_time_after_the_stop_is_never_paid(play: Play) -> None:
    """A host that goes on regardless works for nothing."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        await market.buyer.cancel(job.job_id)
        for second in (30, 50, 70):
            await goes_on(market, agent, run, second * 1_000, by_ms=20_000)
            await agent.usage(run, run.record(second * 1_000))
        await agent.beat(run.ended())
        ended = await market.buyer.ended(job.job_id)
        assert (ended.charged_micro, ended.attempts[0].unbilled_ms) == (10_000, 60_000)

    play(script)


def test_time_that_nobody_witnessed_is_shown_but_never_paid(play: Play) -> None:
    """A host that was silent for longer than the window, while the coordinator was away as well."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await market.halt()
        await agent.over()
        market.clock.advance(WINDOW_MS + 10_000)
        await market.serve()
        await agent.connect()
        await agent.beat(run.runs(WINDOW_MS + 10_000))
        await goes_on(market, agent, run, WINDOW_MS + 15_000, by_ms=5_000)
        await agent.usage(run, run.record(WINDOW_MS), run.record(WINDOW_MS + 15_000))
        await agent.beat(run.ended())
        ended = await market.buyer.ended(job.job_id)
        assert ended.charged_micro == 5_000
        assert ended.attempts[0].unbilled_ms == WINDOW_MS + 10_000

    play(script)


def test_another_hosts_attempt_cannot_be_spoken_for(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        liar = await market.agent()
        other_job, liars_run = await started(market, liar)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        await liar.claim(run.wanted.attempt_id, 1, run.record(10_000))
        await liar.say(
            h.SynchronizeRequest(
                logs=h.LogReport(attempt_id=run.wanted.attempt_id, epoch=1, chunks=[run.writes(b"forged")])
            )
        )
        await liar.beat(liars_run.runs(10_000), run.ended(exit_code=1))
        standing = await market.buyer.job(job.job_id)
        assert (standing.state, standing.charged_micro) == (t.JOB_STATE_RUNNING, 0)
        assert (await agent.usage(run, run.records[0])).usage_number == 1
        run.output.clear()
        await agent.beat(run.ended())
        assert (await market.buyer.ended(job.job_id)).state == t.JOB_STATE_SUCCEEDED
        await market.buyer.cancel(other_job.job_id)

    play(script)


@pytest.mark.parametrize("epoch", [0, 2])
def test_another_epoch_is_not_heard(play: Play, epoch: int) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        record = run.record(10_000)
        await agent.claim(run.wanted.attempt_id, epoch, record)
        await agent.beat(run.runs(10_000), run.ended(epoch=epoch))
        assert (await market.buyer.job(job.job_id)).charged_micro == 0
        await agent.usage(run, record)
        await agent.beat(run.ended())
        assert (await market.buyer.ended(job.job_id)).charged_micro == 10_000

    play(script)


def test_a_container_that_is_said_to_live_after_its_end_is_not_paid(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        job, run = await started(market, agent)
        await goes_on(market, agent, run, 10_000, by_ms=10_000)
        first = run.record(10_000)
        await agent.beat(run.ended(usage_number_last=2))
        market.clock.advance(10_000)
        await agent.beat(run.runs(20_000))
        await agent.usage(run, first, run.record(20_000))
        assert (await market.buyer.ended(job.job_id)).charged_micro == 10_000

    play(script)


def test_a_gpu_that_two_hosts_claim_is_sold_once_and_stops_nobody_elses_jobs(play: Play) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent(gpu_count=2)
        liar = await market.agent()
        liar.facts.gpus[0].uuid = agent.facts.gpus[0].uuid
        await liar.hello()
        jobs = [await market.buyer.submit() for _ in range(3)]

        def given() -> list[str]:
            both = [a.desired for a in (agent, liar) if a.desired is not None]
            return [uuid for desired in both for order in desired.attempts for uuid in order.gpu_uuids]

        async def placed() -> bool:
            return len(given()) == 2

        await eventually(placed, "two are placed")
        assert len(set(given())) == 2
        for job in jobs:
            await market.buyer.cancel(job.job_id)

    play(script)


BROKEN: dict[str, dict[str, Any]] = {
    "facts.cpu_count": {"cpu_count": 0},
    "facts.isolation": {"isolation": t.ISOLATION_UNSPECIFIED},
    "facts.gpus": {"gpus": [t.Gpu(uuid="GPU-1", model="a", vram_bytes=1)] * 2},
    "facts.gpus.uuid": {"gpus": [t.Gpu(uuid="", model="a", vram_bytes=1)]},
    "facts.gpus.vram_bytes": {"gpus": [t.Gpu(uuid="GPU-1", model="a", vram_bytes=0)]},
    "facts.hostname": {"hostname": "a\nb"},
}


@pytest.mark.parametrize("field", BROKEN)
def test_an_agent_that_breaks_the_protocol_is_told_by_which_field(play: Play, field: str) -> None:
    async def script(market: Running) -> None:
        agent = await market.agent()
        facts: Any = h.HostFacts()
        facts.CopyFrom(agent.facts)
        for name, value in BROKEN[field].items():
            facts.ClearField(name)
            facts.MergeFrom(h.HostFacts(**{name: value}))
        agent.facts = facts
        await agent.hello()
        await agent.over()
        assert refusal(agent.error) == "INVALID_FIELD"
        assert agent.error is not None
        assert (agent.error.details() or "").startswith(f"{field}:")

    play(script)


def test_a_message_of_usage_that_tells_of_nobody_changes_nothing(play: Play) -> None:
    """Found by `make fuzz`: it was answered with INTERNAL."""

    async def script(market: Running) -> None:
        agent = await market.agent()
        _, run = await started(market, agent)
        await agent.usages()
        assert (await agent.usage(run)).usage_number == 0
        assert not agent.is_over

    play(script)
