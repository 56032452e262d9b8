"""One seed, one run: a market, what is done to it, and what the auditor finds."""

import asyncio
import gc
import hashlib
import logging
import shutil
import tempfile
import time
import traceback
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import agent.files
import agent.memory
import agent.spool
import runtime.ids
from coordinator.domain.account import Account, Role
from coordinator.domain.metering import Stamp
from coordinator.services import accounts, enrolment
from coordinator.services.mint import digest_of
from coordinator.store import sql_hosts, sql_jobs
from coordinator.store.transaction import SqlTransaction
from ledger.chart import ADJUSTMENTS, FEE, ISSUANCE, PAYOUTS, SUSPENSE
from tests.sim import network
from tests.sim.auditor import DEPOSIT_MICRO, Auditor
from tests.sim.buyers import Buyer
from tests.sim.chaos import Chaos
from tests.sim.clocks import EPOCH_MS, SimClock
from tests.sim.coordinator import SimCoordinator, Storage
from tests.sim.disk import Disk, DiskOs
from tests.sim.engine import Engine
from tests.sim.faults import Dice, Story
from tests.sim.host import SimHost
from tests.sim.liars import KINDS, Liar
from tests.sim.loop import Killed, Process, VirtualLoop
from tests.sim.sql import decoded_once

CHAOS_S = 200.0
CALM_S = 600.0
LOOK_S = 5.0
# What the passes of every second make of the same rows.
DECODERS = ((sql_jobs, "attempt_from_row"), (sql_jobs, "job_from_row"), (sql_hosts, "host_from_row"))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one seed."""

    seed: int
    steps: int
    virtual_s: float
    wall_s: float
    commits: int
    faults: Counter[str]
    seen: Counter[str]
    violations: list[str]
    story: list[str]
    digest: str


class World:
    def __init__(self, seed: int, folder: Path, disk_os: DiskOs, *, is_whole: bool) -> None:
        self.seed = seed
        self.loop = VirtualLoop()
        self.story = Story(self.loop)
        self._disk_os = disk_os
        self._folder = folder
        self.loop.set_exception_handler(self._surprise)
        thread = self.dice("threads")
        self.loop.thread_delay_s = lambda: thread.log_ms(1, 30)
        self.storage = Storage(self.story, self.dice("storage"), is_whole=is_whole)
        self.auditor = Auditor(self.story, self.storage)
        rng = self.dice("plan").rng
        clock = SimClock("coordinator", self.loop, self.dice("clock").rng, 200)
        self.coordinator = SimCoordinator(
            self.loop,
            clock,
            self.storage,
            self.story,
            self.dice("coordinator"),
            self.auditor.look,
            self.auditor.told,
        )
        self.auditor.coordinator = self.coordinator
        self.auditor.hosts = self.hosts = {}
        people = self._people(rng.randint(1, 3), rng.randint(1, 2))
        self.hosts.update({host.id: host for host in people[1]})
        self.buyers = [
            Buyer(
                account,
                loop=self.loop,
                coordinator=self.coordinator,
                dice=self.dice("buyer", account.name),
                story=self.story,
                jobs=rng.randint(2, 5),
            )
            for account in people[0]
        ]

    def _surprise(self, _loop: object, context: dict[str, Any]) -> None:
        """An exception that nobody caught. What a task left unread is none: its reader may be dead."""
        error = context.get("exception")
        if "never retrieved" in context.get("message", ""):
            return
        if error is not None and not isinstance(error, Killed):
            last = traceback.extract_tb(error.__traceback__)[-1:]
            self.auditor.require(condition=False, text=f"nobody caught {error!r:.200} from {last}")
            self.loop.stop()

    def dice(self, *names: object) -> Dice:
        return Dice(self.seed, *names)

    def _people(self, host_count: int, buyer_count: int) -> tuple[list[Account], list[SimHost]]:
        stamp = Stamp(boot_id="before", boot_ms=0, wall_ms=EPOCH_MS)
        with self.storage.engine.begin() as connection:
            tx = SqlTransaction(connection)
            tx.open_accounts([ISSUANCE, PAYOUTS, ADJUSTMENTS, SUSPENSE, FEE], EPOCH_MS)
            buyers = []
            for number in range(buyer_count):
                name, roles = f"buyer{number}", frozenset({Role.BUYER})
                buyers.append(accounts.create_account(tx, "init", name, name, roles, EPOCH_MS))
                accounts.credit(tx, "init", f"{name} deposit", name, DEPOSIT_MICRO, "", EPOCH_MS)
            found = []
            for number in range(host_count):
                name = f"seller{number}"
                seller = accounts.create_account(tx, "init", name, name, frozenset({Role.SELLER}), EPOCH_MS)
                tx.insert_enrolment_token(digest_of(name), seller.id, EPOCH_MS + 1)
                found.append((enrolment.enroll(tx, name, digest_of(name), stamp), seller.id))
        hosts = [self._host(number, host_id, owner) for number, (host_id, owner) in enumerate(found)]
        return buyers, hosts

    def _host(self, number: int, host_id: str, account_id: str) -> SimHost:
        name = f"host{number}"
        rng = self.dice("plan", name).rng
        clock = SimClock(name, self.loop, self.dice("clock", name).rng, 200)
        disk = Disk(name, self._folder / name, self.dice("disk", name), self.story)
        self._disk_os.disks.append(disk)
        has_fuse = rng.random() < 0.5
        engine = Engine(name, self.loop, clock, self.dice("engine", name), self.story, has_fuse=has_fuse)
        host = SimHost(
            host_id,
            account_id,
            loop=self.loop,
            clock=clock,
            disk=disk,
            engine=engine,
            path=network.Path(name, self.loop, self.dice("net", name), self.story),
            dice=self.dice("host", name),
            story=self.story,
            gpu_count=rng.randint(1, 3),
            price_micro=int(10 ** rng.uniform(8, 9.7)),
            accept=self._accept,
        )
        if number and rng.random() < 0.3:
            host.lie = rng.choice(KINDS)
            host.tamper = Liar(host.lie, self.dice("liar", name), self.hosts, host, self.story)
        return host

    def _accept(self, host_id: str, stream: network.Stream) -> bool:
        stream.up.on_arrival = lambda raw: self.auditor.arrived(host_id, raw)
        return self.coordinator.accept(host_id, stream)

    def run(self) -> None:
        self.loop.run_until_complete(self._run())

    async def _run(self) -> None:
        chaos = Chaos(self.dice("chaos"), self.coordinator, list(self.hosts.values()), self.story)
        await chaos.run(CHAOS_S)
        self.story.tell("the faults stop")
        for buyer in self.buyers:
            done, _ = await asyncio.wait(buyer.work)
            for work in done:
                work.result()
            for wish in buyer.wishes:
                if wish.job_ids and wish.cancelled_s is None:
                    await buyer.cancel(wish)
        calm_until_s = self.loop.time() + CALM_S
        while (left := self._left()) and self.loop.time() < calm_until_s:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(LOOK_S)
        self.auditor.require(not left, f"faults stopped {CALM_S:.0f} s ago, and still: {left}")
        self.auditor.judge()
        for metrics in self.coordinator.metrics:
            figure = metrics.registry.get_sample_value
            broken, mended = (
                figure("usance_audit_violations_total"),
                figure("usance_mended_total", {"kind": "leftover"}),
            )
            self.auditor.require(not broken, f"the running audit found {broken} violations")
            self.auditor.require(not mended, f"{mended} ended jobs held money")
        for wish in (wish for buyer in self.buyers for wish in buyer.wishes):
            if wish.cancelled_s is not None:
                (job_id,) = wish.job_ids
                self.auditor.cancelled(job_id, wish.cancelled_s)

    def processes(self) -> list[Process]:
        agents = [host.process for host in self.hosts.values() if host.process]
        return [self.coordinator.process, *agents, *(buyer.process for buyer in self.buyers)]

    def _left(self) -> list[str]:
        """What has not come to its end yet."""
        jobs = self.auditor.rows("SELECT id, state FROM job WHERE ended_ms IS NULL")
        attempts = self.auditor.rows(
            "SELECT id, state, log_state FROM attempt WHERE state <> 'ended' OR log_state = 'open'"
        )
        # Not only is nothing left to do: those who are to do it are there.
        hosts = self.auditor.rows("SELECT id, state FROM host WHERE state <> 'online'")
        left = [str(row) for row in jobs + attempts + hosts]
        for host in (host for host in self.hosts.values() if not host.lie):
            folder = host.disk.folder / "attempts"
            held = host.runner.keys() if host.runner else ()
            left += [f"{host.engine.name} holds {key}" for key in held]
            left += [f"{host.engine.name} keeps {path.name}" for path in folder.glob("*")]
            left += [f"{host.engine.name} has {key}" for key in host.engine.runs]
        return left


class _Secrets:
    """Randomness for ids, from the seed."""

    def __init__(self, rng: Random) -> None:
        self.randbits = rng.getrandbits
        self.token_bytes = rng.randbytes


def play(seed: int, *, is_whole: bool = False) -> Outcome:
    """Run one seed from beginning to end; `is_whole`: through SQLAlchemy, as outside."""
    began_s = time.perf_counter()
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="usance-sim-", dir=shared if shared.is_dir() else None))
    disk_os = DiskOs()
    logging.disable(logging.CRITICAL)
    gc.disable()
    # What was there before is not looked through when this run is cleared away.
    gc.freeze()
    with ExitStack() as stack:
        stack.callback(gc.enable)
        stack.callback(gc.unfreeze)
        stack.callback(logging.disable, logging.NOTSET)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(disk_os.close_all)
        stack.enter_context(patch.object(runtime.ids, "secrets", _Secrets(Random(f"{seed}/ids"))))
        ticks = SimpleNamespace(time_ns=lambda: EPOCH_MS * 1_000_000)
        stack.enter_context(patch.object(runtime.ids, "time", ticks))
        stack.enter_context(patch.object(agent.files, "os", disk_os))
        stack.enter_context(patch.object(agent.memory, "os", disk_os))
        stack.enter_context(patch.object(agent.spool, "os", disk_os))
        for module, decoder in () if is_whole else DECODERS:
            stack.enter_context(patch.object(module, decoder, decoded_once(getattr(module, decoder))))
        world = World(seed, folder, disk_os, is_whole=is_whole)
        ticks.time_ns = lambda: world.coordinator.clock.wall_ms() * 1_000_000
        asyncio.set_event_loop(world.loop)
        try:
            world.run()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            world.story.violate(f"the run broke off: {error!r}")
        finally:
            asyncio.set_event_loop(None)
            outcome = _outcome(seed, world, time.perf_counter() - began_s)
            for process in world.processes():
                process.alive = False
            world.loop.forget()
            world.storage.close()
            gc.collect()
    return outcome


def _outcome(seed: int, world: World, wall_s: float) -> Outcome:
    story = world.story
    return Outcome(
        seed=seed,
        steps=world.loop.steps,
        virtual_s=world.loop.time(),
        wall_s=wall_s,
        commits=world.auditor.looks,
        faults=story.faults,
        seen=story.seen,
        violations=story.violations,
        story=story.trace,
        digest=hashlib.sha256("\n".join(story.trace).encode()).hexdigest(),
    )
