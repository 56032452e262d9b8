"""One chaos: a market, what is done to it for so long, calm, and what the auditor finds."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.chaos.auditor import Auditor
from tests.chaos.buyers import Buyers
from tests.chaos.faults import Faults
from tests.chaos.scene import opened
from tests.rig.parts import wait_until

WINDOWS = 6
FAULTS_LEAST = 5
LOOK_EVERY_S = 1.0
PAUSE_MEAN_S = 2.5
# Whatever waits for a host that will not come back, for output that is lost, for a run's last second.
CALM_S = 180.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    violations: list[str]
    faults: Counter[str]
    ways: Counter[str]
    jobs: int
    looks: int
    missed_looks: int
    # Attempts of which an engine and a supervisor have told how long they ran.
    witnessed: tuple[int, int]
    records: int
    starts: dict[str, int]
    ends: list[dict[str, object]]
    calm_s: float


def play(seed: int, length_s: float, tell: Callable[[str], None], keep: Path | None = None) -> Outcome:
    """Raises parts.MissingError where the machine lacks something. In `keep` are all logs afterwards."""
    dice = Random(f"chaos/{seed}")
    began_s = time.monotonic()
    with opened() as scene:
        auditor = Auditor(scene)
        try:
            faults = Faults(scene, dice, lambda text: tell(f"{time.monotonic() - began_s:7.1f} s  {text}"))
            buyers = Buyers(scene.market, seed, WINDOWS)
            end_s = time.monotonic() + length_s
            next_look_s = next_fault_s = time.monotonic()

            def turn() -> bool:
                nonlocal next_look_s, next_fault_s
                now_s = time.monotonic()
                scene.tick()
                if now_s >= next_look_s:
                    auditor.look()
                    next_look_s = now_s + LOOK_EVERY_S
                if next_fault_s <= now_s < end_s:
                    faults.strike()
                    next_fault_s = time.monotonic() + dice.expovariate(1 / PAUSE_MEAN_S)
                return now_s >= end_s

            wait_until(turn, "the chaos is over", deadline_s=length_s + 120)
            buyers.leave()
            scene.heal()
            calm_s = time.monotonic()
            left: list[str] = []

            def at_rest() -> bool:
                turn()
                left[:] = auditor.left() if buyers.have_left else ["buyers"]
                return not left

            try:
                wait_until(at_rest, "all has come to rest", deadline_s=CALM_S)
            except TimeoutError:
                auditor.violations.append(f"the faults stopped {CALM_S:.0f} s ago, and still: {left}")
            calm_s = time.monotonic() - calm_s
            auditor.judge(buyers.wishes)
            if not (all(auditor.witnessed) and auditor.looks and faults.count.total() >= FAULTS_LEAST):
                auditor.violations.append("it was too calm to prove anything")
            return Outcome(
                violations=auditor.violations,
                faults=faults.count,
                ways=buyers.ways,
                jobs=len(buyers.wishes),
                looks=auditor.looks,
                missed_looks=auditor.missed_looks,
                witnessed=auditor.witnessed,
                records=sum(map(len, auditor.journaled.values())),
                starts=scene.starts,
                ends=list(auditor.ends()),
                calm_s=calm_s,
            )
        finally:
            if keep is not None:
                scene.keep_logs(keep)
            auditor.close()
