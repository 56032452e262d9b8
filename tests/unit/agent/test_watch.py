"""The watch over the GPUs: what it asks when, whom it tells, and what it remembers."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from agent.domain.gpu import Depth, GpuFault, GpuSample, XidSeen
from agent.domain.health import SETTLE_MS, Condition
from agent.gpu.fake import FakeGpus
from agent.gpu.watch import GpuWatch, UnfitError

ALL = frozenset(Depth)
SAMPLE = frozenset({Depth.SAMPLE})


class Clock:
    """Moves when somebody sleeps."""

    def __init__(self, boot_id: str = "boot") -> None:
        self.boot_id = boot_id
        self.now_ms = 1_000_000

    def wall_ms(self) -> int:
        return self.now_ms

    def boot_ms(self) -> int:
        return self.now_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        self.now_ms += duration_ms
        await asyncio.sleep(0)


class Jobs:
    """A user of GPUs that writes down what it is told."""

    def __init__(self) -> None:
        self.using: dict[str, str] = {}
        self.samples: list[GpuSample] = []
        self.failed: dict[str, str] = {}

    def gpus_in_use(self) -> Mapping[str, str]:
        return self.using

    def add_samples(self, samples: Sequence[GpuSample]) -> None:
        self.samples += samples

    async def gpus_failed(self, reasons: Mapping[str, str]) -> None:
        self.failed.update(reasons)


class Bench:
    def __init__(self, file: Path | None = None, clock: Clock | None = None) -> None:
        self.gpus = FakeGpus("a", "b")
        self.clock = clock or Clock()
        self.jobs = Jobs()
        self.watch = GpuWatch(self.gpus, self.clock, file)
        self.changes = 0
        self.watch.tell(self._changed)

    def _changed(self) -> None:
        self.changes += 1

    async def passes(self, count: int, each_ms: int = 1_000) -> None:
        for _ in range(count):
            await self.clock.sleep_ms(each_ms)
            await self.watch.pass_once(self.jobs)

    def condition(self, uuid: str) -> Condition:
        return self.watch.health(uuid).condition


def test_a_gpu_in_use_is_looked_at_every_second_and_the_others_rarely():
    async def story() -> None:
        bench = Bench()
        await bench.watch.open()
        assert bench.gpus.looks == [{"a": ALL, "b": ALL}]
        bench.jobs.using = {"a": "job"}
        bench.gpus.looks.clear()
        await bench.passes(60)
        asked = [depth for look in bench.gpus.looks for depth in look.get("a", ())]
        assert {depth: asked.count(depth) for depth in Depth} == {
            Depth.SAMPLE: 60,
            Depth.PROCESSES: 12,
            Depth.VITALS: 1,
        }
        idle = [depth for look in bench.gpus.looks for depth in look.get("b", ())]
        assert {depth: idle.count(depth) for depth in Depth} == {
            Depth.SAMPLE: 6,
            Depth.PROCESSES: 6,
            Depth.VITALS: 1,
        }
        assert {sample.uuid for sample in bench.jobs.samples} == {"a"}
        assert len(bench.jobs.samples) == 60

    asyncio.run(story())


def test_a_lost_gpu_ends_what_has_it_and_is_told_once():
    async def story() -> None:
        bench = Bench()
        await bench.watch.open()
        bench.jobs.using = {"a": "job"}
        await bench.passes(2)
        assert (bench.jobs.failed, bench.changes) == ({}, 1)
        bench.gpus.faults["a"] = GpuFault.LOST
        await bench.passes(3)
        assert bench.jobs.failed == {"a": f"GPU a is lost: {GpuFault.LOST}"}
        assert (bench.condition("a"), bench.condition("b")) == (Condition.LOST, Condition.HEALTHY)
        assert bench.changes == 2
        del bench.gpus.faults["a"]
        bench.jobs.using = {}
        await bench.passes(11)
        assert bench.condition("a") is Condition.HEALTHY
        assert bench.changes == 3

    asyncio.run(story())


def test_an_error_that_strikes_only_the_job_ends_it_and_no_other():
    async def story() -> None:
        bench = Bench()
        await bench.watch.open()
        bench.jobs.using = {"a": "job"}
        bench.gpus.xids = [XidSeen(uuid="a", number=31), XidSeen(uuid="b", number=94)]
        await bench.passes(1)
        assert bench.jobs.failed == {}  # the job's own fault, and memory that nobody had
        bench.gpus.xids = [XidSeen(uuid="a", number=94, count=2)]
        assert "XID 94" in await bench.watch.why_failed(["a"])
        await bench.passes(1)
        assert set(bench.jobs.failed) == {"a"}
        bench.jobs.using = {}
        await bench.passes(1)
        bench.jobs.failed.clear()
        bench.jobs.using = {"a": "the next job"}
        await bench.passes(1)
        assert bench.jobs.failed == {}
        assert bench.condition("a") is Condition.HEALTHY
        assert bench.watch.xids == {("a", 31): 1, ("b", 94): 1, ("a", 94): 2}

    asyncio.run(story())


def test_a_job_gets_only_what_is_proved_fit():
    async def story() -> None:
        bench = Bench()
        await bench.watch.open()
        told: list[str] = []
        await bench.watch.make_ready(["a", "b"], told.append)
        assert bench.gpus.looks[-1] == {gpu: {Depth.SAMPLE, Depth.PROCESSES} for gpu in "ab"}
        with pytest.raises(UnfitError, match="no GPU c"):
            await bench.watch.make_ready(["a", "c"], told.append)
        bench.gpus.faults["a"] = GpuFault.RESET_REQUIRED
        with pytest.raises(UnfitError, match="GPU a is lost: it has to be reset"):
            await bench.watch.make_ready(["b", "a"], told.append)
        assert told == []

    asyncio.run(story())


def test_a_job_waits_for_what_the_one_before_left_but_not_for_ever():
    async def story() -> None:
        bench = Bench()
        await bench.watch.open()
        bench.jobs.using = {"a": "job"}
        bench.gpus.processes["a"] = (4711,)
        await bench.passes(1)
        bench.jobs.using = {}
        told: list[str] = []

        def progress(text: str) -> None:
            told.append(text)
            if len(told) == 3:
                del bench.gpus.processes["a"]

        await bench.watch.make_ready(["a"], progress)
        assert len(told) == 3
        assert "4711" in told[0]
        bench.gpus.processes["a"] = (4711,)
        began_ms = bench.clock.now_ms
        with pytest.raises(UnfitError, match="4711"):
            await bench.watch.make_ready(["a"], told.append)
        assert bench.clock.now_ms - began_ms >= SETTLE_MS

    asyncio.run(story())


def test_a_gpu_of_which_nothing_is_heard_is_not_proved_fit():
    async def story() -> None:
        bench = Bench()
        bench.gpus.mute = {"a"}
        await bench.watch.open()
        told: list[str] = []
        with pytest.raises(UnfitError, match="GPU a: it has not answered"):
            await bench.watch.make_ready(["b", "a"], told.append)
        assert "not answered" in told[0]
        bench.gpus.mute = set()
        await bench.watch.make_ready(["b", "a"], told.append)

    asyncio.run(story())


def test_what_a_job_leaves_takes_the_gpu_out_of_the_market_until_it_is_clean():
    async def story() -> None:
        bench = Bench()
        await bench.watch.open()
        bench.jobs.using = {"a": "job"}
        bench.gpus.samples["a"] = GpuSample(uuid="a", memory_used_bytes=9 << 30)
        await bench.passes(1)
        bench.jobs.using = {}
        await bench.passes(20)
        assert bench.condition("a") is Condition.HEALTHY
        await bench.passes(15)
        assert bench.condition("a") is Condition.DEGRADED
        assert "9216 MiB" in bench.watch.health("a").reason
        del bench.gpus.samples["a"]
        await bench.passes(11)
        assert bench.condition("a") is Condition.HEALTHY

    asyncio.run(story())


def test_a_slice_shares_the_fate_of_its_board_but_not_its_neighbours_errors():
    async def story() -> None:
        bench = Bench()
        bench.gpus.divide("slice-1", "slice-2")
        inventory = await bench.watch.open()
        assert [gpu.uuid for gpu in inventory.gpus] == ["slice-1", "slice-2", "b"]
        bench.jobs.using = {"slice-1": "one", "slice-2": "two"}
        # The board is at work, for its slices.
        bench.gpus.processes["a"] = (1, 2)
        bench.gpus.xids = [XidSeen(uuid="slice-2", number=94)]
        await bench.passes(10)
        assert set(bench.jobs.failed) == {"slice-2"}
        assert bench.condition("slice-1") is Condition.HEALTHY
        with pytest.raises(UnfitError, match="no GPU a"):
            await bench.watch.make_ready(["a"], lambda _: None)
        bench.gpus.faults["a"] = GpuFault.LOST
        await bench.passes(1)
        assert set(bench.jobs.failed) == {"slice-1", "slice-2"}
        assert bench.condition("slice-1") is Condition.LOST
        with pytest.raises(UnfitError, match="lost"):
            await bench.watch.make_ready(["slice-1"], lambda _: None)

    asyncio.run(story())


def test_what_a_gpu_is_guilty_of_survives_the_agent_but_not_a_reboot(tmp_path):
    file = tmp_path / "gpus.json"

    async def before() -> None:
        bench = Bench(file)
        bench.gpus.samples["b"] = GpuSample(uuid="b", memory_used_bytes=100 << 20)
        await bench.watch.open()
        bench.gpus.xids = [XidSeen(uuid="a", number=79)]
        await bench.passes(10)
        assert bench.condition("a") is Condition.LOST

    async def after(boot_id: str) -> tuple[Condition, int | None]:
        bench = Bench(file, Clock(boot_id))
        bench.gpus.samples["b"] = GpuSample(uuid="b", memory_used_bytes=900 << 20)
        await bench.watch.open()
        assert bench.condition("b") is Condition.DEGRADED
        return bench.condition("a"), bench.watch.chart("b").memory_at_rest_bytes

    asyncio.run(before())
    assert asyncio.run(after("boot")) == (Condition.LOST, 100 << 20)
    assert asyncio.run(after("another boot")) == (Condition.HEALTHY, 100 << 20)
    file.write_text("{damaged")
    bench = Bench(file)
    asyncio.run(bench.watch.open())
    assert bench.condition("a") is Condition.HEALTHY
