"""What a seller does at the machine itself. Each returns when it is done, and says what has become of it."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from agent import prices, status
from agent.domain.host import ANY_MODEL
from agent.link import standing as asking
from agent.link.identity import Identity
from agent.link.standing import Standing, Wish
from agent.settings import Settings
from runtime.clock import Clock
from runtime.text import amount

_LOOK_MS = 1_000

Say = Callable[[str], None]


def wish(identity: Identity, what: Wish) -> Standing:
    """Raises UnreachedError. What the coordinator has taken in holds, whatever becomes of this machine."""
    return asyncio.run(asking.wish(identity, what))


def ask(identity: Identity, since_ms: int) -> Standing:
    """Raises UnreachedError."""
    return asyncio.run(asking.standing(identity, since_ms))


def drained(state_dir: Path, clock: Clock, within_ms: int | None, say: Say) -> bool:
    """Wait until nothing runs here any more. False where that took too long."""

    async def wait() -> bool:
        began_ms, told = clock.boot_ms(), -1
        while True:
            left = sum(attempt.is_live for attempt in status.read(state_dir).attempts)
            if left == 0:
                return True
            if left != told:
                say(f"waiting for {left} {'job' if left == 1 else 'jobs'} to end")
                told = left
            if within_ms is not None and clock.boot_ms() - began_ms >= within_ms:
                return False
            await clock.sleep_ms(_LOOK_MS)

    return asyncio.run(wait())


def set_price(settings: Settings, model: str, micro: int) -> bool:
    """0 for not for sale. Says whether a running agent was told, which tells the market at once."""
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    prices.save(settings.state_dir, {**prices.load(settings.state_dir), model: micro})
    return reload(settings.state_dir)


def reload(state_dir: Path) -> bool:
    """Have a running agent read its settings again. False where none runs."""
    pid = status.agent_pid(state_dir)
    if pid is None:
        return False
    os.kill(pid, signal.SIGHUP)
    return True


def price_lines(settings: Settings) -> list[str]:
    named = prices.load(settings.state_dir)
    return [
        f"{amount(micro)} an hour  {model}{'' if model in named else '  (settings)'}"
        if micro
        else f"not for sale  {model}"
        for model, micro in sorted(settings.prices_micro.items(), key=lambda each: (not each[1], each[0]))
    ]


def price_line(settings: Settings, model: str) -> str:
    """What holds for one model, named or not."""
    configured = settings.prices_micro
    micro = configured.get(model, configured.get(ANY_MODEL, 0))
    if not micro:
        return f'not for sale  {model}; for 0.45 an hour it would be by: usance-agent price "{model}" 0.45'
    return f"{amount(micro)} an hour  {model}{'' if model in configured else ', as every model not named'}"
