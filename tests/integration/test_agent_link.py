"""The agent's link in all weathers: cuts, restarts, silence, drains, and more output than the wire takes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from agent.domain.attempt import OutputStream
from agent.domain.host import Hello, HostFacts, Terms
from agent.domain.token import parse
from agent.executor.fake import FakeExecutor, FakeWorld, Script
from agent.executor.ports import Executor
from agent.gpu.fake import FakeGpus
from agent.gpu.watch import GpuWatch
from agent.link import client
from agent.link.client import OUTPUT_ON_WIRE_BYTES_MAX, Link
from agent.link.enroll import enroll
from agent.runner import Runner
from runtime.channel import open_channel
from runtime.clock import SystemClock
from tests.integration.test_agent import check_complete
from tests.support.fake_coordinator import FakeCoordinator, desired_attempt
from usance.v1 import types_pb2

CLOCK = SystemClock()
KIB = 1 << 10


@dataclass
class Party:
    """A coordinator, and an agent in this very process whose jobs are scripts."""

    coordinator: FakeCoordinator
    world: FakeWorld
    runner: Runner
    link: Link


Story = Callable[[Party], Awaitable[None]]


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "BACKOFF_MS_MIN", 10)
    monkeypatch.setattr(client, "BACKOFF_MS_MAX", 200)

    def run(story: Story, waiting_bytes_max: int = 64 << 20) -> None:
        asyncio.run(whole(story, tmp_path, waiting_bytes_max))

    return run


async def whole(
    story: Story,
    folder: Path,
    waiting_bytes_max: int,
    *,
    executor: Executor | None = None,
    line_to: Callable[[str], str] = lambda address: address,
) -> None:
    """`line_to` gives the address at which the agent reaches the coordinator's own."""
    coordinator = FakeCoordinator()
    await coordinator.start()
    state = folder / "state"
    state.mkdir()
    identity = await enroll(state, parse(coordinator.token))
    world = FakeWorld()
    executor = executor or FakeExecutor(world, CLOCK)
    address = line_to(identity.hosts)
    gpus = GpuWatch(FakeGpus(), CLOCK)
    await gpus.open()
    runner = Runner(
        folder=state / "attempts",
        executor=executor,
        clock=CLOCK,
        gpus=gpus,
        record_ms=200,
        output_waiting_bytes_max=waiting_bytes_max,
    )
    facts = HostFacts(
        hostname="here",
        cpu_count=1,
        memory_bytes=1,
        disk_free_bytes=1,
        gpus=(),
        isolation=executor.isolation,
        executor="a fake",
        driver_version="",
        cuda_version="",
        region="",
        labels={},
    )
    terms = Terms(gpu_hour_prices_micro={}, run_ms_max=0, trusted_accounts=(), reclaim_notice_ms=0)
    link = Link(
        open_channel=lambda: open_channel(
            address, identity.authority_pem, identity.key_pem, identity.certificate_pem
        ),
        hello=lambda: Hello(agent_version="0", boot_id=CLOCK.boot_id, facts=facts, terms=terms),
        holder=runner,
        clock=CLOCK,
    )
    runner.tell(link)
    await runner.restore()
    loops = [asyncio.create_task(link.run()), asyncio.create_task(runner.keep_reconciling())]
    try:
        await coordinator.until(lambda: coordinator.streams_open == 1, "the stream is open")
        await story(Party(coordinator=coordinator, world=world, runner=runner, link=link))
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await runner.close()
        await coordinator.stop()
    assert coordinator.faults == []


def pieces(count: int, each_bytes: int = 64 * KIB) -> tuple[tuple[OutputStream, bytes], ...]:
    streams = (OutputStream.STDOUT, OutputStream.STDERR)
    return tuple((streams[n % 2], bytes([n % 256]) * each_bytes) for n in range(count))


def test_cuts_lose_nothing_and_double_nothing(tell):
    async def story(party: Party) -> None:
        coordinator = party.coordinator
        party.world.scripts["attempt_1"] = Script(output=pieces(100), run_ms=2_000, exit_code=6)
        taken = coordinator.want(desired_attempt("fake"))
        for cuts in range(1, 5):
            await coordinator.until(partial(lambda n: taken.offset > n, cuts * 1_000_000), "output comes")
            hellos = len(coordinator.hellos)
            coordinator.cut()
            await coordinator.until(partial(lambda n: len(coordinator.hellos) > n, hellos), "it is back")
        await coordinator.until(lambda: taken.complete, "the job is complete")
        assert check_complete(taken).exit_code == 6
        assert bytes(taken.stdout) == b"".join(data for stream, data in pieces(100) if stream == "stdout")
        assert bytes(taken.stderr) == b"".join(data for stream, data in pieces(100) if stream == "stderr")

    tell(story)


def test_a_restarted_coordinator_is_found_again(tell):
    async def story(party: Party) -> None:
        coordinator = party.coordinator
        party.world.scripts["attempt_1"] = Script(output=pieces(3), run_ms=1_500, exit_code=6)
        taken = coordinator.want(desired_attempt("fake"))
        await coordinator.until(lambda: taken.last.run_ms > 0, "the job runs")
        await coordinator.stop()
        await asyncio.sleep(0.5)
        await coordinator.start()
        await coordinator.until(lambda: taken.complete, "the job is complete")
        assert check_complete(taken).run_ms == 1_500

    tell(story)


def test_a_silent_coordinator_is_left(tell, monkeypatch):
    monkeypatch.setattr(client, "SILENCE_MS_MIN", 500)

    async def story(party: Party) -> None:
        coordinator = party.coordinator
        coordinator.beat_interval_ms = 100
        coordinator.cut()
        await coordinator.until(lambda: len(coordinator.hellos) == 2, "the agent is back")
        coordinator.answering = False
        await coordinator.until(lambda: len(coordinator.hellos) == 3, "the agent leaves and comes back")
        coordinator.answering = True
        await coordinator.until(lambda: coordinator.streams_open == 1, "one stream is left")

    tell(story)


def test_a_drained_agent_opens_the_new_stream_before_it_leaves_the_old(tell):
    async def story(party: Party) -> None:
        coordinator = party.coordinator
        beats = len(coordinator.beats)
        coordinator.drain(spread_ms=50)
        await coordinator.until(lambda: coordinator.streams_open == 2, "both streams are open")
        await coordinator.until(lambda: coordinator.streams_open == 1, "the old one is left")
        assert len(coordinator.hellos) == 2
        await coordinator.until(lambda: len(coordinator.beats) > beats + 2, "it beats on")

    tell(story)


def test_output_that_is_not_stored_waits_and_beats_do_not(tell):
    """A coordinator that stores nothing: at most 1 MiB is sent, and the rest waits in the job."""

    async def story(party: Party) -> None:
        coordinator = party.coordinator
        coordinator.acknowledging = False
        party.world.scripts["attempt_1"] = Script(output=pieces(64), run_ms=None)
        taken = coordinator.want(desired_attempt("fake"))
        await coordinator.until(lambda: taken.offset == OUTPUT_ON_WIRE_BYTES_MAX, "the wire is full")
        beats = len(coordinator.beats)
        await coordinator.until(lambda: len(coordinator.beats) >= beats + 4, "it beats on")
        assert taken.offset == OUTPUT_ON_WIRE_BYTES_MAX
        coordinator.acknowledging = True
        await coordinator.until(lambda: taken.offset == 64 * 64 * KIB, "the rest comes")

    tell(story)


@pytest.mark.parametrize("takes_many", [True, False], ids=["many", "one"])
def test_usage_of_all_jobs_goes_up_together_where_the_coordinator_takes_it(tell, takes_many):
    """One of before there was such a thing would pass it over, and the usage would be lost."""

    async def story(party: Party) -> None:
        coordinator = party.coordinator
        if not takes_many:
            coordinator.usage_reports_max = 0
            coordinator.cut()
            await coordinator.until(lambda: len(coordinator.hellos) == 2, "it has read the welcome")
        names = ["attempt_1", "attempt_2", "attempt_3"]
        for name in names:
            party.world.scripts[name] = Script(run_ms=None, exit_code_on_stop=0)
        taken = [coordinator.want(desired_attempt("fake", attempt_id=name)) for name in names]
        keys = party.runner.keys
        await coordinator.until(
            lambda: (
                all(len(one.records) >= 3 for one in taken)
                and len(keys()) == 3
                and all(party.runner.acknowledged(key)[0] >= 2 for key in keys())
            ),
            "all are metered and acknowledged",
        )
        if takes_many:
            together = max(len(usages.reports) for usages in coordinator.usages)
            assert together == 3
        else:
            assert coordinator.usages == []

    tell(story)


def test_what_changes_while_a_beat_is_on_its_way_is_told_together(tell, monkeypatch):
    """Each change was a beat of all that is held: of many short jobs each paid for the others."""
    monkeypatch.setattr(client, "ANSWER_WAIT_MS", 60_000)

    async def story(party: Party) -> None:
        coordinator = party.coordinator
        coordinator.beat_interval_ms = 30_000
        coordinator.cut()
        await coordinator.until(lambda: len(coordinator.hellos) == 2, "it has read the welcome")
        names = ["attempt_1", "attempt_2", "attempt_3"]
        for name in names:
            party.world.scripts[name] = Script(run_ms=100)
        coordinator.want(desired_attempt("fake", attempt_id=names[0]))
        await coordinator.until(lambda: coordinator.taken[names[0]].ended, "it beats when something changes")
        coordinator.answering = False
        for name in names[1:]:
            coordinator.want(desired_attempt("fake", attempt_id=name))
        while not all(report.ending for report in party.runner.reports()) or len(party.runner.keys()) < 3:
            await CLOCK.sleep_ms(10)
        beats = len(coordinator.beats)
        coordinator.answering = True
        coordinator.want(desired_attempt("fake", attempt_id=names[0]))
        await coordinator.until(lambda: all(coordinator.taken[name].ended for name in names), "all are told")
        assert len(coordinator.beats) == beats + 1

    tell(story)


def test_usage_is_cut_and_told_while_the_job_runs(tell):
    async def story(party: Party) -> None:
        coordinator = party.coordinator
        party.world.scripts["attempt_1"] = Script(run_ms=None, exit_code_on_stop=0)
        wanted = desired_attempt("fake")
        taken = coordinator.want(wanted)
        await coordinator.until(lambda: len(taken.records) >= 4, "records come")
        assert not taken.ended
        wanted.stop_reason = types_pb2.END_REASON_CANCELLED
        coordinator.want(wanted)
        await coordinator.until(lambda: taken.complete, "it is stopped")
        check_complete(taken)

    tell(story)


def test_what_the_coordinator_no_longer_names_is_ended_and_forgotten(tell):
    async def story(party: Party) -> None:
        coordinator = party.coordinator
        party.world.scripts["attempt_1"] = Script(run_ms=None)
        taken = coordinator.want(desired_attempt("fake"))
        await coordinator.until(lambda: taken.last.run_ms > 0, "the job runs")
        coordinator.drop("attempt_1")
        await coordinator.until(lambda: not coordinator.beats[-1].attempts, "nothing is held any more")
        assert party.world.runs == {}

    tell(story)


def test_output_that_nobody_takes_any_more_holds_nothing_up(tell):
    """More than may wait was written when the job was given up: what waited for room let go (seed 1002)."""

    async def story(party: Party) -> None:
        coordinator = party.coordinator
        coordinator.acknowledging = False
        party.world.scripts["attempt_1"] = Script(output=pieces(64), run_ms=None)
        taken = coordinator.want(desired_attempt("fake"))
        await coordinator.until(lambda: taken.offset >= 256 * KIB, "as much waits as may")
        coordinator.drop("attempt_1")
        await coordinator.until(lambda: not coordinator.beats[-1].attempts, "nothing is held any more")
        assert party.world.runs == {}

    tell(story, waiting_bytes_max=256 * KIB)


def test_what_was_lost_here_is_not_begun_again(tell):
    async def story(party: Party) -> None:
        coordinator = party.coordinator
        wanted = desired_attempt("fake", attempt_id="lost")
        wanted.usage_number_acknowledged = 3
        coordinator.acknowledging = False  # keeps the number that we set
        coordinator.want(wanted)
        beats = len(coordinator.beats)
        await coordinator.until(lambda: len(coordinator.beats) > beats + 2, "it has had time")
        assert party.world.starts == []
        assert not coordinator.beats[-1].attempts

    tell(story)
