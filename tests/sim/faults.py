"""What goes wrong: drawn from the seed, counted by kind, told in the story."""

from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random

from tests.sim.loop import VirtualLoop

STORY_LINES = 60


class Violation(AssertionError):  # noqa: N818 - it is what the auditor finds, not an error of its own
    """A promise was broken."""


@dataclass
class Story:
    """What happened lately, and how often what was done to the market."""

    loop: VirtualLoop
    faults: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=STORY_LINES))
    # A digest of everything told: two runs of a seed must agree.
    trace: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def tell(self, text: str) -> None:
        line = f"{self.loop.time():9.3f} s  {text}"
        self.lines.append(line)
        self.trace.append(line)

    def violate(self, text: str) -> None:
        """Kept, not raised: whoever is at work might swallow it."""
        self.tell(f"VIOLATION: {text}")
        self.violations.append(text)

    def fault(self, kind: str, text: str = "") -> None:
        self.faults[kind] += 1
        self.tell(f"FAULT {kind}: {text}" if text else f"FAULT {kind}")


class Dice:
    """Chances of one place of the simulation, from a stream of its own: no place disturbs another."""

    def __init__(self, seed: int, *names: object) -> None:
        self.rng = Random(f"{seed}/{'/'.join(map(str, names))}")

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def ms(self, least: int, most: int) -> float:
        """A duration in seconds, given in milliseconds."""
        return self.rng.randint(least, most) / 1_000

    def log_ms(self, least: int, most: int) -> float:
        """As `ms`, but short ones are as likely as long ones."""
        duration_s: float = least / 1_000 * (most / least) ** self.rng.random()
        return duration_s
