"""Where a seller's commands are served: parsed arguments in, words and an exit code out."""

import argparse
import asyncio
import json
import sys
from typing import assert_never

from agent import desk, status, window
from agent import doctor as checkup
from agent.commands import Exit
from agent.domain.checkup import examine
from agent.link import identity as identities
from agent.link.identity import Identity
from agent.link.standing import Standing, UnreachedError, Wish
from agent.settings import Settings, credits_micro
from agent.uninstall import InTheWayError, uninstall
from runtime.clock import SystemClock, utc_offset_minutes
from runtime.findings import Verdict, as_json, as_text, worst
from runtime.text import amount, printable

_DAY_MINUTES = 1_440
_WATCH_MS = 2_000
_CLEAR = "\x1b[H\x1b[2J"


class CounterError(Exception):
    """It can't be done. The message says why; the code is the program's."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


def serve(chosen: argparse.Namespace, settings: Settings) -> Exit:
    """Raises CounterError."""
    try:
        return _serve(chosen, settings)
    except UnreachedError as error:
        raise CounterError(Exit.REFUSED, str(error)) from error
    except (InTheWayError, OSError) as error:
        raise CounterError(Exit.FAILED, str(error)) from error


def _serve(chosen: argparse.Namespace, settings: Settings) -> Exit:
    match chosen.command:
        case "status":
            return _status(chosen, settings)
        case "doctor":
            return doctor(chosen, settings)
        case "pause" | "resume" | "reclaim":
            wish = {"pause": Wish.PAUSE, "resume": Wish.SELL, "reclaim": Wish.RECLAIM}[chosen.command]
            _say_standing(desk.wish(_identity(settings), wish))
            return Exit.OK
        case "drain":
            return _drain(chosen, settings)
        case "price":
            return _price(chosen, settings)
        case "reload":
            return _reloaded(told=desk.reload(settings.state_dir))
        case _:
            return _uninstall(chosen, settings)


def doctor(chosen: argparse.Namespace, settings: Settings, settings_error: str = "") -> Exit:
    """Fails where jobs can't run here, or must not; what is only doubted is no failure."""
    facts = asyncio.run(checkup.look(settings, settings_error))
    findings = examine(facts)
    _say(json.dumps(as_json(findings), indent=2) if chosen.json else as_text(findings))
    if chosen.bundle is not None:
        checkup.write_bundle(chosen.bundle, settings, facts, findings)
        print(f"written: {chosen.bundle}", file=sys.stderr)  # noqa: T201
    verdict = worst(findings)
    match verdict:
        case Verdict.GOOD | Verdict.DOUBT:
            return Exit.OK
        case Verdict.BAD:
            return Exit.FAILED
        case _:
            assert_never(verdict)


def lacks(settings: Settings) -> str:
    """What keeps this machine from taking jobs, and how to get it; nothing is installed or tried."""
    findings = examine(asyncio.run(checkup.look(settings, tries=False)))
    return as_text([one for one in findings if one.verdict is Verdict.BAD])


def _status(chosen: argparse.Namespace, settings: Settings) -> Exit:
    while True:
        found = status.read(settings.state_dir)
        now = window.ask(settings.state_dir) if found.agent_running else None
        told, why = _standing(settings)
        if chosen.json:
            market = vars(told) if told else {"error": why}
            _say(json.dumps({**found.as_json(), "now": now, "market": market}, indent=2))
        else:
            text = "\n".join([found.as_text(), *_now_lines(now), *_market_lines(told, why)])
            _say(_CLEAR + text if chosen.watch and sys.stdout.isatty() else text)
        if not chosen.watch:
            return Exit.OK if found.host_id else Exit.NOT_ENROLLED
        sys.stdout.flush()
        asyncio.run(SystemClock().sleep_ms(_WATCH_MS))


def _standing(settings: Settings) -> tuple[Standing | None, str]:
    identity = identities.load(settings.state_dir)
    if identity is None:
        return None, "not enrolled"
    now_ms = SystemClock().wall_ms()
    minutes = now_ms // 60_000 + utc_offset_minutes(now_ms)
    midnight_ms = (minutes - minutes % _DAY_MINUTES - utc_offset_minutes(now_ms)) * 60_000
    try:
        return desk.ask(identity, midnight_ms), ""
    except UnreachedError as error:
        return None, str(error)


def _now_lines(now: dict[str, object] | None) -> list[str]:
    if now is None:
        return []
    lines = [f"link      {'up' if now.get('connected') else 'down; what runs goes on'}", "GPUs"]
    gpus, jobs = now.get("gpus"), now.get("jobs")
    for gpu in gpus if isinstance(gpus, list) else ():
        use = [
            f"{gpu['utilization_percent']} %" if gpu["utilization_percent"] is not None else "",
            f"{gpu['memory_used_bytes'] >> 20} MiB" if gpu["memory_used_bytes"] is not None else "",
            f"{gpu['power_mw'] // 1_000} W" if gpu["power_mw"] is not None else "",
            f"{gpu['temperature_c']} C" if gpu["temperature_c"] is not None else "",
        ]
        what = gpu["attempt_id"] or "free"
        health = f"{gpu['health']}{': ' if gpu['reason'] else ''}{gpu['reason']}"
        lines.append(f"  {gpu['uuid']}  {gpu['model']}  {health}  {' '.join(filter(None, use))}  {what}")
    lines += [
        f"  {job['attempt_id']} has run for {job['run_ms'] // 1_000} s"
        for job in (jobs if isinstance(jobs, list) else ())
    ]
    return lines


def _market_lines(told: Standing | None, why: str) -> list[str]:
    if told is None:
        return [f"market    {why}"]
    earned = f"{amount(told.earned_micro)} credits by {told.attempt_count} attempts"
    reason = f": {told.reason}" if told.reason else ""
    return [f"market    {told.state}{reason}", f"today     {earned}"]


def _drain(chosen: argparse.Namespace, settings: Settings) -> Exit:
    _say_standing(desk.wish(_identity(settings), Wish.PAUSE))
    within_ms = None if chosen.within is None else chosen.within * 1_000
    if not desk.drained(settings.state_dir, SystemClock(), within_ms, _say):
        raise CounterError(Exit.FAILED, "jobs run still; no new ones come")
    _say("nothing runs here")
    return Exit.OK


def _price(chosen: argparse.Namespace, settings: Settings) -> Exit:
    if chosen.model is None:
        for line in desk.price_lines(settings) or ["nothing is for sale"]:
            _say(line)
        return Exit.OK
    if chosen.credits is None:
        _say(desk.price_line(settings, chosen.model))
        return Exit.OK
    micro = 0 if chosen.credits == "0" else credits_micro(chosen.credits)
    if micro is None:
        raise CounterError(
            Exit.USAGE,
            'a price has at most six decimals, such as "0.45"; 0 takes the model out of the market',
        )
    return _reloaded(told=desk.set_price(settings, chosen.model, micro))


def _reloaded(*, told: bool) -> Exit:
    _say("the agent reads its settings again" if told else "no agent runs; it holds from the next start on")
    return Exit.OK


def _uninstall(chosen: argparse.Namespace, settings: Settings) -> Exit:
    if not chosen.yes:
        if not sys.stdin.isatty():
            raise CounterError(Exit.USAGE, "nobody is here to be asked; add --yes")
        kept = "keeps" if chosen.keep_state else "removes"
        question = (
            f"This takes the agent off the machine, and {kept} {settings.state_dir} with this host's"
            " identity. Go on? [y/N] "
        )
        if input(question).strip().lower() not in ("y", "yes"):
            return Exit.FAILED
    uninstall(settings, end_jobs=chosen.end_jobs, keep_state=chosen.keep_state, say=_say)
    return Exit.OK


def _identity(settings: Settings) -> Identity:
    found = identities.load(settings.state_dir)
    if found is None:
        raise CounterError(
            Exit.NOT_ENROLLED, f"no identity in {settings.state_dir}; usance-agent enroll TOKEN"
        )
    return found


def _say_standing(standing: Standing) -> None:
    _say(f"{standing.state}: {standing.reason}" if standing.reason else standing.state)


def _say(text: str) -> None:
    for line in text.splitlines():
        print(printable(line))  # noqa: T201
