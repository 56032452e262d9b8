"""What is done to the market while it works: one kind of fault after another, drawn from the seed."""

import asyncio
from collections.abc import Callable

from tests.sim.coordinator import SimCoordinator
from tests.sim.faults import Dice, Story
from tests.sim.host import SimHost


class Chaos:
    def __init__(self, dice: Dice, coordinator: SimCoordinator, hosts: list[SimHost], story: Story) -> None:
        self._dice = dice
        self._coordinator = coordinator
        self._hosts = hosts
        self._story = story
        self._loop = coordinator.loop
        self._calm = False
        # Some seeds are quiet, some stormy; in some a kind of fault never comes.
        self._mean_s = dice.rng.choice([3, 8, 20, 60])
        kinds: list[Callable[[], None]] = [
            self._partition,
            self._break,
            self._slow,
            self._unruly,
            self._kill_agent,
            self._kill_agent,
            self._reboot,
            self._disk_full,
            self._disk_fails,
            self._engine_away,
            self._host_jump,
            self._coordinator_jump,
            self._kill_coordinator,
            self._kill_coordinator,
            self._reboot_coordinator,
            self._database_fails,
            self._drain,
        ]
        self._kinds = [kind for kind in kinds if dice.chance(0.6)] or kinds

    async def run(self, length_s: float) -> None:
        until_s = self._loop.time() + length_s
        while (pause_s := self._dice.rng.expovariate(1 / self._mean_s)) < until_s - self._loop.time():
            await asyncio.sleep(pause_s)
            self._dice.rng.choice(self._kinds)()
        await asyncio.sleep(max(0.0, until_s - self._loop.time()))
        self._calm = True
        self._heal()

    def _heal(self) -> None:
        for host in self._hosts:
            host.disk.full, host.disk.fails = False, 0.0
            host.path.slow, host.path.unruly = 1.0, 0.0
            host.path.partition(up=False, down=False)
            if host.process is not None:
                host.process.steps_left = host.process.writes_left = None
        self._coordinator.process.steps_left = None
        self._coordinator.storage.fails = 0.0

    def _host(self) -> SimHost:
        return self._dice.rng.choice(self._hosts)

    def _later(self, delay_s: float, function: Callable[[], None]) -> None:
        self._loop.world_later(delay_s, function)

    def _partition(self) -> None:
        host, way = self._host(), self._dice.rng.choice(["both", "both", "up", "down"])
        self._story.fault(f"partition {way}", host.engine.name)
        host.path.partition(up=way != "down", down=way != "up")
        self._later(self._dice.log_ms(300, 90_000), lambda: host.path.partition(up=False, down=False))

    def _break(self) -> None:
        host = self._host()
        self._story.fault("connection reset", host.engine.name)
        host.path.break_streams()

    def _slow(self) -> None:
        host = self._host()
        self._story.fault("slow network", host.engine.name)
        host.path.slow = self._dice.rng.choice([10.0, 40.0])
        self._later(self._dice.log_ms(1_000, 30_000), lambda: setattr(host.path, "slow", 1.0))

    def _unruly(self) -> None:
        host = self._host()
        host.path.unruly = self._dice.rng.choice([0.1, 0.5])
        self._later(self._dice.log_ms(3_000, 60_000), lambda: setattr(host.path, "unruly", 0.0))

    def _kill_agent(self) -> None:
        host = self._host()
        if host.process is None or not host.agent_alive:
            return
        if self._dice.chance(0.5):
            self._story.fault("agent dies at a step", host.engine.name)
            host.process.steps_left = self._dice.rng.randint(0, 300)
        else:
            self._story.fault("agent dies at a write", host.engine.name)
            host.process.writes_left = self._dice.rng.randint(0, 12)

    def _reboot(self) -> None:
        host = self._host()
        if host.agent_alive:
            self._story.fault("host loses power", host.engine.name)
            host.reboot()

    def _disk_full(self) -> None:
        host = self._host()
        host.disk.full = True
        self._later(self._dice.log_ms(500, 40_000), lambda: setattr(host.disk, "full", False))

    def _disk_fails(self) -> None:
        host = self._host()
        host.disk.fails = self._dice.rng.choice([0.05, 0.3])
        self._later(self._dice.log_ms(500, 40_000), lambda: setattr(host.disk, "fails", 0.0))

    def _engine_away(self) -> None:
        host = self._host()
        self._story.fault("engine away", host.engine.name)
        host.engine.away_until_s = self._loop.time() + self._dice.log_ms(200, 20_000)

    def _host_jump(self) -> None:
        host, by_ms = self._host(), self._jump_ms()
        self._story.fault("host's wall clock jumps", f"{host.engine.name} by {by_ms} ms")
        host.clock.jump(by_ms)

    def _coordinator_jump(self) -> None:
        by_ms = self._jump_ms()
        self._story.fault("coordinator's wall clock jumps", f"by {by_ms} ms")
        self._coordinator.clock.jump(by_ms)

    def _jump_ms(self) -> int:
        return self._dice.rng.choice([-1, 1]) * int(self._dice.log_ms(100, 7_200_000) * 1_000)

    def _kill_coordinator(self) -> None:
        if self._coordinator.process.alive:
            self._story.fault("coordinator dies at a step")
            self._coordinator.process.steps_left = self._dice.rng.randint(0, 300)

    def _reboot_coordinator(self) -> None:
        if self._coordinator.process.alive:
            self._story.fault("coordinator's machine reboots")
            self._coordinator.process.kill()
            self._coordinator.clock.reboot()

    def _database_fails(self) -> None:
        storage = self._coordinator.storage
        storage.fails = self._dice.rng.choice([0.02, 0.15])
        self._later(self._dice.log_ms(500, 20_000), lambda: setattr(storage, "fails", 0.0))

    def _drain(self) -> None:
        """A planned restart."""
        process = self._coordinator.process
        if process.alive:
            self._story.fault("planned restart")
            process.run(self._coordinator.hosts.drain, 1_000)
            self._later(1.0, process.kill)
