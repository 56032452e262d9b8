"""A seller's machine: its clock, disk, engine and GPUs, and the real agent on it."""

import asyncio
from collections.abc import Callable
from typing import Any

from agent.domain.attempt import Isolation
from agent.domain.host import Hello, HostFacts, Terms
from agent.gpu.simulated import SimulatedGpus
from agent.gpu.watch import GpuWatch
from agent.link.client import Link
from agent.runner import Runner
from tests.sim.clocks import SimClock
from tests.sim.disk import Disk
from tests.sim.engine import Engine, SimExecutor
from tests.sim.faults import Dice, Story
from tests.sim.loop import Process, VirtualLoop
from tests.sim.network import Channel, Path, Stream

MODEL = "SIMULATED RTX 4090"
RECORD_MS = 10_000


class SimHost:
    def __init__(
        self,
        host_id: str,
        account_id: str,
        *,
        loop: VirtualLoop,
        clock: SimClock,
        disk: Disk,
        engine: Engine,
        path: Path,
        dice: Dice,
        story: Story,
        gpu_count: int,
        price_micro: int,
        accept: Callable[[str, Stream], bool],
    ) -> None:
        self.id = host_id
        self.account_id = account_id
        self.loop = loop
        self.clock = clock
        self.disk = disk
        self.engine = engine
        self.path = path
        self.dice = dice
        self.story = story
        self.price_micro = price_micro
        self.accept = accept
        # What a lying seller does to each message; honest ones have none.
        self.tamper: Callable[[Any], list[Any]] | None = None
        self.lie = ""
        self.gpus = SimulatedGpus(
            count=gpu_count, model=MODEL, vram_bytes=24 << 30, seed=host_id, clock=clock
        )
        self.runner: Runner | None = None
        self.process: Process | None = None
        self._reboots = False
        self.power_losses_s: list[float] = []
        self.outages: list[tuple[float, float]] = []
        self.start()

    @property
    def agent_alive(self) -> bool:
        return self.process is not None and self.process.alive

    def start(self) -> None:
        self._reboots = False
        self.process = Process(f"agent of {self.id}", self.loop)
        self.process.on_death.append(self._died)
        self.story.tell(f"{self.engine.name}: the agent starts")
        self.process.spawn(self._agent(), "agent")

    def reboot(self) -> None:
        """The machine loses its power."""
        self._reboots = True
        self.power_losses_s.append(self.loop.time())
        if self.agent_alive:
            assert self.process is not None
            self.process.kill()
        self.engine.lose_all()
        self.disk.lose_power()
        self.clock.reboot()

    def _died(self) -> None:
        self.story.tell(f"{self.engine.name}: the agent dies")
        self.path.break_streams()
        delay_s = self.dice.log_ms(3_000, 60_000) if self._reboots else self.dice.log_ms(200, 45_000)
        self.outages.append((self.loop.time(), self.loop.time() + delay_s))
        self.loop.world_later(delay_s, self.start)

    async def _agent(self) -> None:
        """As `agent.app.run`, on what is simulated here."""
        process = self.process
        assert process is not None
        # Without a file: the agent keeps nothing of GPUs on its disk that a market could notice.
        gpus = GpuWatch(self.gpus, self.clock)
        await gpus.open()
        runner = Runner(
            folder=self.disk.folder / "attempts",
            executor=SimExecutor(self.engine),
            clock=self.clock,
            gpus=gpus,
            record_ms=RECORD_MS,
            output_waiting_bytes_max=256 << 10,
        )
        link = Link(
            open_channel=lambda: Channel(self.path, lambda s: self.accept(self.id, s), self.tamper),  # type: ignore[arg-type, return-value]
            hello=self._hello,
            holder=runner,
            clock=self.clock,
        )
        runner.tell(link)
        self.runner = runner
        try:
            await runner.restore()
            loops = [runner.keep_reconciling(), link.run(), self._keep_watching(gpus, runner)]
            tasks = [asyncio.create_task(loop) for loop in loops]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except Exception as error:  # noqa: BLE001 - the program ends with a trace; its service starts it again
            self.story.tell(f"{self.engine.name}: the agent ends by itself: {error!r}")
            self.story.seen[f"agent ended by itself: {type(error).__name__}"] += 1
        process.kill()

    async def _keep_watching(self, gpus: GpuWatch, runner: Runner) -> None:
        """Less often than the program does, which here would be most of the steps."""
        while True:
            await self.clock.sleep_ms(5_000)
            await gpus.pass_once(runner)

    def _hello(self) -> Hello:
        return Hello(
            agent_version="0.1.0",
            boot_id=self.clock.boot_id,
            facts=HostFacts(
                hostname=self.engine.name,
                cpu_count=8,
                memory_bytes=64 << 30,
                disk_free_bytes=100 << 30,
                gpus=self.gpus.infos,
                isolation=Isolation.CONTAINER,
                executor="simulated",
                driver_version="",
                region="",
                cuda_version="",
                labels={},
            ),
            terms=Terms(
                gpu_hour_prices_micro={MODEL: self.price_micro},
                run_ms_max=0,
                trusted_accounts=(),
                reclaim_notice_ms=0,
            ),
        )
