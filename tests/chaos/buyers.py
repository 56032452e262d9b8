"""Buyers at their command lines: each waits for a job, leaves it, cancels it, gives it more, or is killed."""

import signal
import subprocess
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from tests.chaos.scene import BUYERS, ChaosMarket
from tests.rig.images import TINY
from tests.support.market import program

# What `usance` may take for one thing, when all that it speaks to fails again and again.
PATIENCE_S = 120
WAYS = ("stays", "stays", "stays", "is killed", "is frozen", "cancels", "extends", "leaves")
# Exit codes of jobs here; those of `usance` itself are above 100.
CODES = (0, 0, 0, 3)


@dataclass(kw_only=True)
class Wish:
    """A job as its buyer wants it."""

    name: str
    buyer: str
    way: str
    code: int
    lines: int
    pause: str
    flags: list[str]
    # What `usance run` has written and said; None while it goes on, or where it was ended.
    out: bytes | None = None
    exit_code: int | None = None
    err: str = ""
    complaints: list[str] = field(default_factory=list)

    @property
    def script(self) -> str:
        told = f'echo "{self.name} line $i"; echo "{self.name} error $i" >&2'
        turn = f"{told}; i=$((i+1)); sleep {self.pause}"
        return f"i=0; while [ $i -lt {self.lines} ]; do {turn}; done; exit {self.code}"

    def written(self, word: str) -> bytes:
        """All that a run of it writes to one stream."""
        return "".join(f"{self.name} {word} {i}\n" for i in range(self.lines)).encode()


class Buyers:
    """Two people, each with some windows open."""

    def __init__(self, market: ChaosMarket, seed: int, windows: int) -> None:
        self._market = market
        self._over = threading.Event()
        self.wishes: list[Wish] = []
        self.ways: Counter[str] = Counter()
        self._threads = [
            threading.Thread(target=self._live, args=(BUYERS[n % len(BUYERS)], Random(f"{seed}/{n}"), n))
            for n in range(windows)
        ]
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        """No new jobs; the windows that are open close when theirs have ended."""
        self._over.set()

    @property
    def have_left(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def _live(self, buyer: str, dice: Random, window: int) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            wish = _wish(dice, buyer, f"{buyer}-{window}-{number}")
            self.wishes.append(wish)
            self.ways[wish.way] += 1
            self._pursue(wish, dice)

    def _pursue(self, wish: Wish, dice: Random) -> None:
        detached = wish.way in ("cancels", "extends", "leaves")
        argv = ["run", "-y", "--name", wish.name, *wish.flags, *(["--detach"] if detached else [])]
        process = self._start(wish.buyer, *argv, "--", "sh", "-c", wish.script)
        match wish.way:
            case "is killed":
                self._over.wait(dice.uniform(0.5, 6))
                process.kill()
                _ended(process)
                return
            case "is frozen":
                self._over.wait(dice.uniform(0.5, 3))
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGSTOP)
                self._over.wait(dice.uniform(0.5, 6))
                process.send_signal(signal.SIGCONT)
            case _:
                pass
        out, err = _ended(process)
        wish.err, wish.exit_code = err.decode(errors="replace"), process.returncode
        if not detached:
            wish.out = out
        elif process.returncode == 0 and wish.way != "leaves":
            self._over.wait(dice.uniform(0, 5))
            more = ["cancel"] if wish.way == "cancels" else ["extend", "--budget", "5"]
            told = self._start(wish.buyer, *more, wish.name)
            _ended(told)

    def _start(self, buyer: str, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [program("usance"), *arguments],
            env=self._market.environment(buyer),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def _ended(process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
    try:
        return process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def _wish(dice: Random, buyer: str, name: str) -> Wish:
    kind = dice.choice(["process", "process", "process", "boxes", "cards"])
    flags = {
        "process": ["--simulated", "--isolation", "process", "--gpu", f"any:{dice.choice([1, 1, 1, 2])}"],
        "boxes": ["--simulated", "--image", TINY, "--memory", "64MB"],
        "cards": ["--image", TINY, "--memory", "64MB"],
    }[kind]
    flags += ["--budget", str(dice.choice([20, 60])), "--max-time", "30s", "--grace", "1s"]
    flags += ["--retries", str(dice.choice([0, 1, 3])), "--max-wait", "60s"]
    flags += ["--on-host-loss", dice.choice(["wait", "wait", "replace", "fail"])]
    return Wish(
        name=name,
        buyer=buyer,
        way=dice.choice(WAYS),
        code=dice.choice(CODES),
        lines=dice.choice([1, 5, 40]),
        pause=dice.choice(["0", "0.1", "0.3"]),
        flags=flags,
    )
