"""What a restarted agent makes of what it finds: after a reboot, a damaged file, an orphan, a lost run."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.domain.attempt import AttemptReport, AttemptState, EndReason
from agent.domain.confidential import Confidential
from agent.executor.fake import FakeExecutor, FakeWorld, Script
from agent.gpu.fake import FakeGpus
from agent.gpu.watch import GpuWatch
from agent.runner import Runner
from runtime.clock import SystemClock
from tests.support.orders import desired

DEADLINE_S = 10


class OtherBoot(SystemClock):
    """The clock of the same machine after it was restarted."""

    @property
    def boot_id(self) -> str:
        return "another boot"


class Later(SystemClock):
    """The clock of the same machine ten minutes on."""

    def boot_ms(self) -> int:
        return super().boot_ms() + 600_000


class Host:
    """A state folder and a world; agents come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "attempts"
        self.world = FakeWorld()
        self.gpus = FakeGpus("g")
        # That of the agent which lives now.
        self.watch: GpuWatch | None = None
        self.changes = asyncio.Condition()

    async def agent(
        self, story: Callable[[Runner], Awaitable[None]], clock: SystemClock | None = None
    ) -> None:
        """The life of one agent, killed at the end of the story."""
        clock = clock or SystemClock()
        self.watch = gpus = GpuWatch(self.gpus, clock)
        await gpus.open()
        runner = Runner(
            folder=self.folder,
            executor=FakeExecutor(self.world, clock),
            clock=clock,
            gpus=gpus,
            record_ms=100,
            output_waiting_bytes_max=1 << 20,
        )
        runner.tell(self)
        await runner.restore()
        loop = asyncio.create_task(runner.keep_reconciling())
        try:
            await story(runner)
        finally:
            loop.cancel()
            await runner.close()

    def changed(self) -> None:
        self._notify()

    def progressed(self) -> None:
        self._notify()

    def evidence(self) -> None:
        self._notify()

    def _notify(self) -> None:
        async def notify() -> None:
            async with self.changes:
                self.changes.notify_all()

        self._notifying = asyncio.get_running_loop().create_task(notify())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S), self.changes:
            await self.changes.wait_for(condition)


@pytest.fixture
def tell(tmp_path: Path):
    def run(story: Callable[[Host], Awaitable[None]]) -> None:
        async def whole() -> None:
            await story(Host(tmp_path))

        asyncio.run(whole())

    return run


def only(runner: Runner) -> AttemptReport:
    (report,) = runner.reports()
    return report


def test_after_a_reboot_the_run_is_lost_and_what_was_metered_counts(tell):
    async def story(host: Host) -> None:
        host.world.scripts["a"] = Script(run_ms=None)

        async def before(runner: Runner) -> None:
            await runner.apply([desired("a", gpu_uuids=("g",))])
            await host.until(lambda: len(runner.usage_after(runner.keys()[0], 0, 9)) >= 2)

        async def after(runner: Runner) -> None:
            await host.until(lambda: only(runner).state is AttemptState.ENDED)
            ending = only(runner).ending
            assert ending is not None
            assert ending.reason is EndReason.HOST_LOST
            assert "restarted" in ending.detail
            assert ending.exit_code is None
            records = runner.usage_after(runner.keys()[0], 0, 99)
            assert (ending.run_ms, ending.usage_number_last) == (records[-1].end_ms, records[-1].number)

        await host.agent(before)
        await host.agent(after, OtherBoot())

    tell(story)


def test_what_ended_while_the_agent_was_away_ended_by_itself(tell):
    """Even when its paid time is over by the time that the agent is back."""

    async def story(host: Host) -> None:
        host.world.scripts["a"] = Script(run_ms=5_000, exit_code=3)

        async def before(runner: Runner) -> None:
            await runner.apply([desired("a", paid_through_ms=10_000)])
            await host.until(lambda: only(runner).state is AttemptState.RUNNING)

        async def after(runner: Runner) -> None:
            await host.until(lambda: only(runner).state is AttemptState.ENDED)
            ending = only(runner).ending
            assert ending is not None
            assert (ending.reason, ending.exit_code, ending.run_ms) == (EndReason.EXITED, 3, 5_000)

        await host.agent(before)
        await host.agent(after, Later())

    tell(story)


def test_a_run_that_somebody_removed_is_lost(tell):
    async def story(host: Host) -> None:
        host.world.scripts["a"] = Script(run_ms=None)

        async def before(runner: Runner) -> None:
            await runner.apply([desired("a")])
            await host.until(lambda: only(runner).state is AttemptState.RUNNING)

        async def after(runner: Runner) -> None:
            await host.until(lambda: only(runner).state is AttemptState.ENDED)
            ending = only(runner).ending
            assert ending is not None
            assert (ending.reason, ending.detail) == (EndReason.HOST_LOST, "the run is gone from the host")

        await host.agent(before)
        host.world.runs.clear()
        await host.agent(after)

    tell(story)


def test_what_runs_for_nobody_is_destroyed(tell):
    async def story(host: Host) -> None:
        host.world.scripts["a"] = Script(run_ms=None)

        async def before(runner: Runner) -> None:
            await runner.apply([desired("a")])
            await host.until(lambda: only(runner).state is AttemptState.RUNNING)

        async def after(runner: Runner) -> None:
            assert runner.reports() == ()
            assert host.world.runs == {}

        await host.agent(before)
        (folder,) = host.folder.iterdir()
        (folder / "attempt.json").write_text("{damaged")
        await host.agent(after)
        assert list(host.folder.iterdir()) == []

    tell(story)


def test_an_agent_killed_between_the_start_and_its_note_finds_the_run(tell):
    async def story(host: Host) -> None:
        host.world.scripts["a"] = Script(run_ms=None)

        async def before(runner: Runner) -> None:
            await runner.apply([desired("a")])
            await host.until(lambda: only(runner).state is AttemptState.RUNNING)

        async def after(runner: Runner) -> None:
            await host.until(lambda: only(runner).state is AttemptState.RUNNING)
            assert len(host.world.starts) == 1

        await host.agent(before)
        (folder,) = host.folder.iterdir()
        file = folder / "attempt.json"
        text = file.read_text()
        begin, end = text.index('"run": {'), text.index("}", text.index('"run": {')) + 1
        file.write_text(text[:begin] + '"run": null' + text[end:])
        await host.agent(after)

    tell(story)


def test_a_stop_while_it_is_being_fetched_is_an_end_without_a_run(tell):
    async def story(host: Host) -> None:
        host.world.scripts["a"] = Script(prepare_ms=60_000)

        async def alone(runner: Runner) -> None:
            await runner.apply([desired("a")])
            await host.until(lambda: only(runner).detail == "preparing nothing")
            await runner.apply([desired("a", stop_reason=EndReason.CANCELLED)])
            await host.until(lambda: only(runner).state is AttemptState.ENDED)
            ending = only(runner).ending
            assert ending is not None
            assert (ending.reason, ending.run_ms) == (EndReason.CANCELLED, 0)
            assert (ending.usage_number_last, only(runner).container_id) == (0, "")
            assert host.world.starts == []
            await runner.apply([])
            await host.until(lambda: runner.reports() == ())

        await host.agent(alone)

    tell(story)


def test_ended_attempts_are_told_after_a_restart_until_they_are_dropped(tell):
    async def story(host: Host) -> None:
        host.world.scripts["a"] = Script(exit_code=9, run_ms=30)

        async def before(runner: Runner) -> None:
            await runner.apply([desired("a")])
            await host.until(lambda: only(runner).state is AttemptState.ENDED)

        async def after(runner: Runner) -> None:
            ending = only(runner).ending
            assert ending is not None
            assert (ending.exit_code, ending.run_ms) == (9, 30)
            await runner.apply([])
            assert runner.reports() == ()
            await host.until(lambda: not any(host.folder.iterdir()))

        await host.agent(before)
        await host.agent(after)

    tell(story)


def test_secrets_are_waited_for_and_kept_in_no_file(tell):
    """Also by an agent that begins where another was killed: the coordinator tells it anew."""

    async def story(host: Host) -> None:
        host.world.scripts["a"] = Script(run_ms=None)
        known = Confidential(files={"TOKEN": b"canary"})
        untold = desired(is_confidential=True)

        async def waits(runner: Runner) -> None:
            await runner.apply([untold])
            await host.until(lambda: only(runner).detail == "waiting for its secrets")
            assert host.world.prepared == set()

        async def is_told(runner: Runner) -> None:
            await runner.apply([replace(untold, confidential=known)])
            await host.until(lambda: only(runner).state is AttemptState.RUNNING)
            assert host.world.told == {untold.order.key: known}
            kept = b"".join(path.read_bytes() for path in host.folder.rglob("*") if path.is_file())
            assert b"attempt" in kept
            assert b"canary" not in kept
            assert "canary" not in repr((known, replace(untold, confidential=known)))

        await host.agent(waits)
        await host.agent(is_told)

    tell(story)
