"""What a coordinator does by itself, again and again, beside what it is asked for."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from coordinator.api.edge import Edge
from coordinator.api.limits import COUNT_MS, WEIGH_MS, Limits
from coordinator.api.metrics import Metrics
from coordinator.api.survey import SURVEY_EVERY_MS, Ground, survey
from coordinator.api.uses import Uses
from coordinator.domain.metering import Stamp
from coordinator.loops import repeat
from coordinator.services import audit, gpus, reap, retention, upkeep
from coordinator.services.aside import Aside
from coordinator.services.dispatch import Dispatcher
from coordinator.settings import Settings

_LOG = logging.getLogger(__name__)
PASS_EVERY_MS = 1_000
SEAL_EVERY_MS = 60_000
UPKEEP_EVERY_MS = 30_000
AUDIT_EVERY_MS = 30_000
# What is to go need not go at once; where there is more, nobody shall wait for its writes.
DROP_EVERY_MS, DROP_SOON_MS = 3_600_000, 1_000


def dispatcher_of(edge: Edge, on_aside: Callable[[str], None]) -> Dispatcher:
    rules = edge.rules
    return Dispatcher(edge.now, rules.fee_ppm, rules.reconnect_window_ms, on_aside)


async def schedule(edge: Edge, dispatcher: Dispatcher) -> None:
    """What happens is acted on within its own transaction; this is for what only time brings."""

    async def one_pass() -> None:
        await edge.write(dispatcher.look)

    async def pause() -> None:
        await asyncio.sleep(0 if dispatcher.looks_again else PASS_EVERY_MS / 1_000)

    await repeat("scheduling", one_pass, pause)


async def reap_lost(edge: Edge, on_aside: Callable[[str], None]) -> None:
    rules = reap.Rules(
        started=edge.now(),
        beat_interval_ms=edge.rules.beat_interval_ms,
        window_ms=edge.rules.reconnect_window_ms,
    )
    aside, after, began_ms = Aside(on_aside), reap.Place(), 0

    def acted(due: reap.Due, now: Stamp) -> Awaitable[None]:
        return edge.write(lambda tx: reap.act(tx, due, rules, edge.heard, now))

    async def one_pass() -> None:
        nonlocal after, began_ms
        began_ms = edge.clock.boot_ms()
        now = edge.now()
        found = await edge.read(lambda tx: reap.find(tx, rules, after, edge.heard, now))
        after = found.last
        for name, why in found.broken.items():
            aside.put("row", name, why, now.wall_ms)
        due = [one for one in found.due if not aside.has(one.name, now.wall_ms)]
        # All are asked for before the first is awaited: they share their commits.
        for one, done in [(one, acted(one, now)) for one in due]:
            try:
                await done
            except Exception as error:  # noqa: BLE001 - whatever it is, the others must not wait for it
                aside.put(one.kind, one.name, repr(error), now.wall_ms)
        await edge.write(lambda tx: gpus.pass_once(tx, now.wall_ms))

    async def pause() -> None:
        await edge.clock.sleep_ms(max(0, began_ms + PASS_EVERY_MS - edge.clock.boot_ms()))

    await repeat("reaping", one_pass, pause)


async def keep_up(edge: Edge, metrics: Metrics, uses: Uses) -> None:
    rules, started, at = edge.rules, edge.now(), {"attempt": "", "job": "", "sealed": ""}

    async def one_pass() -> None:
        now = edge.now()
        orphans = await edge.write(lambda tx: upkeep.orphans_once(tx, now))
        at["attempt"] = await edge.write(
            lambda tx: upkeep.overdue_once(tx, started, rules.reconnect_window_ms, at["attempt"], now)
        )
        used = uses.take()
        await edge.write(lambda tx: tx.save_token_uses(used))
        leftovers, at["job"] = await edge.write(lambda tx: upkeep.leftovers_once(tx, at["job"], now))
        if len(edge.vault.keys) > 1:
            write = edge.write(lambda tx: upkeep.reseal_once(tx, edge.vault, at["sealed"]))
            count, at["sealed"] = await write
            _LOG.log(logging.INFO if count else logging.DEBUG, "sealed %d orders' secrets anew", count)
        for kind, count in (("orphan", orphans), ("leftover", leftovers)):
            metrics.mended.labels(kind).inc(count)
            if count:
                _LOG.warning("upkeep had to mend: %d x %s", count, kind)

    await repeat("upkeep", one_pass, partial(edge.clock.sleep_ms, UPKEEP_EVERY_MS))


async def count_jobs(edge: Edge, limits: Limits) -> None:
    """For what one account may have of them at a time."""

    async def one_pass() -> None:
        limits.counted(await edge.read(lambda tx: tx.open_jobs()))

    await repeat("counting jobs", one_pass, partial(edge.clock.sleep_ms, COUNT_MS))


async def count_output(edge: Edge, limits: Limits) -> None:
    """For what is kept of one account's jobs."""

    async def one_pass() -> None:
        limits.weighed(await edge.read(lambda tx: tx.output_bytes()))

    await repeat("weighing output", one_pass, partial(edge.clock.sleep_ms, WEIGH_MS))


async def sample(edge: Edge, metrics: Metrics) -> None:
    """A sample, again and again, beside everything else: what breaks a promise is seen within minutes."""
    at = {"job": ""}

    async def one_pass() -> None:
        found = await edge.read(lambda tx: audit.sample(tx, at["job"]))
        at["job"] = found.after_job_id
        metrics.audited.inc(found.jobs)
        metrics.violations.inc(len(found.violations))
        metrics.audit_at.set(edge.clock.wall_ms() / 1_000)
        for violation in found.violations:
            _LOG.error("VIOLATED: %s", violation)

    await repeat("auditing", one_pass, partial(edge.clock.sleep_ms, AUDIT_EVERY_MS))


async def look_round(edge: Edge, metrics: Metrics, settings: Settings) -> None:
    ground = Ground(data_dir=settings.data_dir, backup_mark=settings.backup_mark)
    one_pass = partial(survey, edge, metrics, ground)
    await repeat("the survey", one_pass, partial(edge.clock.sleep_ms, SURVEY_EVERY_MS))


async def drop_output(edge: Edge, days_kept: int) -> None:
    """Where output is kept for so many days only."""
    after = ""

    async def one_pass() -> None:
        nonlocal after
        now_ms = edge.clock.wall_ms()
        count, after = await edge.write(lambda tx: retention.drop_output_once(tx, days_kept, after, now_ms))
        _LOG.log(logging.INFO if count else logging.DEBUG, "dropped the output of %d old jobs", count)

    async def pause() -> None:
        await edge.clock.sleep_ms(DROP_SOON_MS if after else DROP_EVERY_MS)

    if days_kept:
        await repeat("dropping output", one_pass, pause)


async def seal(edge: Edge) -> None:
    async def one_pass() -> None:
        now_ms = edge.clock.wall_ms()
        sealed = await edge.write(lambda tx: tx.seal(now_ms))
        if sealed is not None:
            # Whoever keeps this line can tell later whether anything up to it was altered.
            _LOG.info("the ledger is sealed up to transfer %d: %s", sealed[0], sealed[1].hex())

    await repeat("sealing", one_pass, partial(edge.clock.sleep_ms, SEAL_EVERY_MS))
