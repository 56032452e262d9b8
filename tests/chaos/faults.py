"""What is done to the market: one fault after another, drawn from a seed, each with its end."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from random import Random

import psycopg

from tests.chaos.scene import AGENTS, COORDINATOR, DATABASE, SMALL_DISKS, Scene, fill
from tests.rig.nvml.state import Fault
from tests.support.agent_process import supervisors

# Certificates hold from ten minutes before they were made: who is further behind finds ours not yet valid.
STEP_MS_MAX = 500_000
DELAY_MS, LOSS_PERCENT = 200, 5


class Faults:
    def __init__(self, scene: Scene, dice: Random, tell: Callable[[str], None]) -> None:
        self._scene = scene
        self._dice = dice
        self._tell = tell
        self.count: Counter[str] = Counter()
        self._kinds: Sequence[Callable[[], str]] = [
            self._kill_coordinator,
            self._freeze_coordinator,
            self._restart_coordinator,
            self._kill_agent,
            self._freeze_agent,
            self._restart_agent,
            self._kill_supervisor,
            self._freeze_supervisor,
            self._restart_engine,
            self._restart_database,
            self._cut_database,
            self._partition,
            self._slow_line,
            self._lossy_line,
            self._full_disk,
            self._full_database,
            self._step_clock,
            self._lose_gpu,
        ]
        # Each kind once, in some order, then again in another.
        self._left: list[Callable[[], str]] = []

    def strike(self) -> None:
        if not self._left:
            self._left = list(self._kinds)
            self._dice.shuffle(self._left)
        kind = self._left.pop()
        told = kind()
        name = kind.__name__.strip("_").replace("_", " ")
        self.count[name] += bool(told)
        if told:
            self._tell(f"FAULT {name}: {told}")

    def _between(self, least_s: float, most_s: float) -> float:
        return self._dice.uniform(least_s, most_s)

    def _agent(self) -> str:
        return self._dice.choice(AGENTS)

    def _end(self, name: str, by: signal.Signals, away_s: float) -> str:
        self._scene.stay_away(name, away_s)
        self._scene.running[name].send_signal(by)
        return f"{name} by {by.name}, back in {away_s:.1f} s"

    def _freeze(self, pid: int, what: str) -> str:
        duration_s = self._between(0.5, 8)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        self._scene.later(duration_s, partial(_go_on, pid))
        return f"{what} for {duration_s:.1f} s"

    def _kill_coordinator(self) -> str:
        return self._end(COORDINATOR, signal.SIGKILL, self._between(0, 5))

    def _restart_coordinator(self) -> str:
        return self._end(COORDINATOR, signal.SIGTERM, self._between(0, 3))

    def _freeze_coordinator(self) -> str:
        return self._freeze(self._scene.running[COORDINATOR].pid, COORDINATOR)

    def _kill_agent(self) -> str:
        # Longer than the window, now and then.
        return self._end(self._agent(), signal.SIGKILL, self._dice.choice([0, 1, 4, 14]))

    def _restart_agent(self) -> str:
        return self._end(self._agent(), signal.SIGTERM, self._between(0, 3))

    def _freeze_agent(self) -> str:
        name = self._agent()
        return self._freeze(self._scene.running[name].pid, name)

    def _supervisors(self) -> list[tuple[str, int]]:
        state_of = self._scene.market.state_of
        return [(name, pid) for name in AGENTS for pid in supervisors(state_of(name))]

    def _kill_supervisor(self) -> str:
        found = self._supervisors()
        if not found:
            return ""
        name, pid = self._dice.choice(found)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return f"one of {name}"

    def _freeze_supervisor(self) -> str:
        found = self._supervisors()
        if not found:
            return ""
        name, pid = self._dice.choice(found)
        return self._freeze(pid, f"one of {name}")

    def _restart_engine(self) -> str:
        number = self._dice.choice([signal.SIGTERM, signal.SIGKILL])
        survives = self._dice.random() < 0.5
        self._scene.engine.set_live_restore(on=survives)
        self._scene.engine.restart(number)
        return f"by {number.name}, {'with' if survives else 'without'} live-restore"

    def _restart_database(self) -> str:
        by = self._dice.choice([signal.SIGINT, signal.SIGQUIT])
        return self._end(DATABASE, by, self._between(0, 4))

    def _cut_database(self) -> str:
        kind = self._dice.choice(["connections ended", "line drops", "line cut"])
        if kind == "connections ended":
            with suppress(psycopg.OperationalError):  # it is not there just now
                self._scene.postgres.cut_connections()
        elif kind == "line drops":
            self._scene.line.drop()
        else:
            self._scene.line.cut(self._between(1, 6))
        return kind

    def _partition(self) -> str:
        name, way = self._agent(), self._dice.choice(["up", "down", "both"])
        duration_s = self._between(1, 14)
        wire = self._scene.net.wires[name]
        wire.cut(up=way != "down", down=way != "up")
        self._scene.later(duration_s, wire.mend)
        self.count[f"partition {way}"] += 1
        return f"{name} {way} for {duration_s:.1f} s"

    def _slow_line(self) -> str:
        name = self._agent()
        wire = self._scene.net.wires[name]
        by = wire.delay(DELAY_MS)
        self._scene.later(self._between(4, 12), wire.mend)
        return f"{name}, {DELAY_MS} ms each way, by {by}"

    def _lossy_line(self) -> str:
        name = self._agent()
        wire = self._scene.net.wires[name]
        wire.lose(LOSS_PERCENT)
        self._scene.later(self._between(4, 12), wire.mend)
        return f"{name}, {LOSS_PERCENT} % each way"

    def _full_disk(self) -> str:
        name = self._dice.choice(SMALL_DISKS)
        self._scene.later(self._between(2, 9), fill(self._scene.disk_of(name)))
        return name

    def _full_database(self) -> str:
        self._scene.later(self._between(1, 5), fill(self._scene.disk_of(DATABASE)))
        return "its disk"

    def _step_clock(self) -> str:
        name = self._dice.choice([COORDINATOR, *AGENTS])
        clock = self._scene.clocks[name]
        clock.step(self._dice.randint(-STEP_MS_MAX, STEP_MS_MAX) - clock.step_ms)
        return f"{name}'s is {clock.step_ms:+} ms off"

    def _lose_gpu(self) -> str:
        index, state = self._dice.randrange(2), self._scene.gpus.state
        state.fail_gpu(index, Fault.GPU_IS_LOST)
        self._scene.later(self._between(2, 8), partial(state.heal_gpu, index))
        return f"cards' GPU {index}"


def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
