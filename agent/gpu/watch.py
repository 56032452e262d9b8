"""Looks at this machine's GPUs for as long as the agent lives, and knows how each of them is."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from agent.domain.gpu import Depth, GpuInfo, GpuSample, Inventory, Look
from agent.domain.health import (
    SETTLE_MS,
    Chart,
    Condition,
    GpuHealth,
    after_reading,
    after_use,
    after_xid,
    joined,
    judge,
    judge_itself,
    what_is_left,
)
from agent.domain.xid import Meaning, meaning, words
from agent.files import replace_durably
from agent.gpu.ports import Gpus
from runtime.clock import Clock

log = logging.getLogger(__name__)

# GPUs that somebody has are looked at every second; the others only to see that they are still there.
LOOK_MS = 1_000
IDLE_LOOK_MS = 10_000
PROCESSES_MS = 5_000
VITALS_MS = 60_000
_SETTLE_LOOK_MS = 500


class User(Protocol):
    """Whoever has jobs on the GPUs."""

    def gpus_in_use(self) -> Mapping[str, str]:
        """The GPUs that attempts have now, and the attempt that has each."""
        ...

    def add_samples(self, samples: Sequence[GpuSample]) -> None:
        """What the GPUs in use told."""
        ...

    async def gpus_failed(self, reasons: Mapping[str, str]) -> None:
        """Whatever runs on these GPUs is over; may be told again and again."""
        ...


class UnfitError(Exception):
    """A GPU is not fit for a job; the message says why, to a person."""


@dataclass(frozen=True, kw_only=True)
class _Due:
    """When a GPU was last asked for what."""

    sample_ms: int
    processes_ms: int
    vitals_ms: int


class GpuWatch:
    """How the GPUs are. What must outlive the agent is in `file`, where one is given."""

    def __init__(self, gpus: Gpus, clock: Clock, file: Path | None = None) -> None:
        self._gpus = gpus
        self._clock = clock
        self._file = file
        self._inventory = Inventory(driver_version="", cuda_version="", gpus=())
        self._infos: dict[str, GpuInfo] = {}
        self._charts: dict[str, Chart] = {}
        self._due: dict[str, _Due] = {}
        # Why what ran on a GPU is over though the GPU is not: until nobody has it any more.
        self._struck: dict[str, str] = {}
        self._kept = b""
        self._told: dict[str, GpuHealth] = {}
        self._on_change: Callable[[], None] = lambda: None
        # How often the driver gave which error, by GPU.
        self.xids: Counter[tuple[str, int]] = Counter()

    async def open(self) -> Inventory:
        """What is here. Raises GpuError."""
        self._inventory = await self._gpus.open()
        now_ms = self._clock.boot_ms()
        self._infos = {info.uuid: info for info in (*self._inventory.gpus, *self._inventory.boards)}
        kept = _load(self._file, self._clock.boot_id) if self._file else {}
        unknown = Chart(answered_ms=now_ms)
        self._charts = {uuid: replace(kept.get(uuid, unknown), answered_ms=now_ms) for uuid in self._infos}
        await self._look(dict.fromkeys(self._infos, tuple(Depth)), now_ms)
        self._tell()
        return self._inventory

    async def close(self) -> None:
        await self._gpus.close()

    def tell(self, on_change: Callable[[], None]) -> None:
        """Have it called whenever a GPU's health changes."""
        self._on_change = on_change

    # What is known

    @property
    def inventory(self) -> Inventory:
        return self._inventory

    @property
    def restarts(self) -> int:
        """How often whatever asks the driver had to be started again."""
        return self._gpus.restarts

    def has(self, uuid: str) -> bool:
        return uuid in self._infos

    def info(self, uuid: str) -> GpuInfo:
        return self._infos[uuid]

    def chart(self, uuid: str) -> Chart:
        return self._charts[uuid]

    def health(self, uuid: str) -> GpuHealth:
        now_ms, board = self._clock.boot_ms(), self._infos[uuid].board
        own = judge(self._charts[uuid], now_ms)
        # Who computes on a board is for its slices to say; all else that is wrong with it concerns them.
        return own if board == uuid else joined(own, judge_itself(self._charts[board], now_ms))

    # The two ends of a job

    async def make_ready(self, uuids: Collection[str], progress: Callable[[str], None]) -> None:
        """Return when these GPUs are proved fit for a job. Raises UnfitError."""
        missing = sorted(set(uuids) - {info.uuid for info in self._inventory.gpus})
        if missing:
            raise UnfitError(f"this host has no GPU {', '.join(missing)}")
        give_up_ms = self._clock.boot_ms() + SETTLE_MS
        while True:
            boards = {self._infos[uuid].board for uuid in uuids}
            wanted = dict.fromkeys({*uuids, *boards}, (Depth.SAMPLE, Depth.PROCESSES))
            look = await self._look(wanted, self._clock.boot_ms())
            answered = {reading.uuid for reading in look.readings}
            for uuid in uuids:
                self._refuse_unfit(uuid)
            doubts = [f"GPU {uuid}: {doubt}" for uuid in uuids if (doubt := self._doubt(uuid, answered))]
            if not doubts:
                return
            if self._clock.boot_ms() >= give_up_ms:
                raise UnfitError(doubts[0])
            progress(f"waiting until the GPUs are proved to be clean; {doubts[0]}")
            await self._clock.sleep_ms(_SETTLE_LOOK_MS)

    def _doubt(self, uuid: str, answered: Collection[str]) -> str:
        """What speaks against a job on it, though it is well as far as we know; empty where nothing does."""
        if not {uuid, self._infos[uuid].board}.issubset(answered):
            return "it has not answered"
        return what_is_left(self._charts[uuid])

    def _refuse_unfit(self, uuid: str) -> None:
        now_ms = self._clock.boot_ms()
        own = judge_itself(self._charts[uuid], now_ms)
        health = joined(own, judge_itself(self._charts[self._infos[uuid].board], now_ms))
        if health.condition is not Condition.HEALTHY:
            raise UnfitError(f"GPU {uuid} is {health.condition}: {health.reason}")

    async def why_failed(self, uuids: Collection[str]) -> str:
        """Did one of these GPUs fail under the job that has them? What is known now, asked anew."""
        boards = {self._infos[uuid].board for uuid in uuids if uuid in self._infos}
        wanted = {uuid for uuid in (*uuids, *boards) if uuid in self._infos}
        await self._look(dict.fromkeys(sorted(wanted), (Depth.SAMPLE,)), self._clock.boot_ms())
        return next(iter(self._failed(uuids).values()), "")

    # The loop

    async def keep_watching(self, user: User) -> None:
        """For ever."""
        while True:
            await self.pass_once(user)
            await self._clock.sleep_ms(LOOK_MS)

    async def pass_once(self, user: User) -> None:
        """Look at what is due, and tell who must know."""
        now_ms = self._clock.boot_ms()
        in_use = frozenset(user.gpus_in_use())
        self._note_use(in_use, now_ms)
        wanted = {uuid: depth for uuid in self._infos if (depth := self._wanted(uuid, in_use, now_ms))}
        if wanted:
            look = await self._look(wanted, now_ms)
            user.add_samples([r.sample for r in look.readings if r.sample is not None and r.uuid in in_use])
        failed = self._failed(in_use)
        if failed:
            await user.gpus_failed(failed)
        await self._keep()
        self._tell()

    def _note_use(self, in_use: Collection[str], now_ms: int) -> None:
        for uuid, chart in self._charts.items():
            self._charts[uuid] = after_use(chart, in_use=uuid in in_use, now_ms=now_ms)
        for uuid in [uuid for uuid in self._struck if uuid not in in_use]:
            del self._struck[uuid]

    def _wanted(self, uuid: str, in_use: Collection[str], now_ms: int) -> list[Depth]:
        boards = {self._infos[used].board for used in in_use if used in self._infos}
        busy = uuid in in_use or uuid in boards
        due, pace_ms = self._due.get(uuid), LOOK_MS if busy else IDLE_LOOK_MS
        # A look that comes a little early because the one before was late is on time.
        now_ms += LOOK_MS // 2
        if due is None:
            return list(Depth)
        wanted = []
        if now_ms - due.sample_ms >= pace_ms:
            wanted.append(Depth.SAMPLE)
        if now_ms - due.processes_ms >= max(pace_ms, PROCESSES_MS):
            wanted.append(Depth.PROCESSES)
        if now_ms - due.vitals_ms >= VITALS_MS:
            wanted.append(Depth.VITALS)
        return wanted

    async def _look(self, wanted: Mapping[str, Collection[Depth]], now_ms: int) -> Look:
        look = await self._gpus.look(wanted)
        for uuid, depth in wanted.items():
            self._due[uuid] = _after(self._due.get(uuid), depth, now_ms)
        now_ms = self._clock.boot_ms()
        for reading in look.readings:
            self._charts[reading.uuid] = after_reading(self._charts[reading.uuid], reading, now_ms)
        for seen in look.xids:
            if seen.uuid in self._charts:
                self._note_xid(seen.uuid, seen.number, seen.count, now_ms)
        return look

    def _note_xid(self, uuid: str, number: int, count: int, now_ms: int) -> None:
        self.xids[uuid, number] += count
        log.warning("GPU %s: %s (%s), %d times", uuid, words(number), meaning(number).value, count)
        self._charts[uuid] = after_xid(self._charts[uuid], number, now_ms)
        if meaning(number) is Meaning.ENDS_JOB:
            self._struck[uuid] = words(number)

    def _failed(self, in_use: Collection[str]) -> dict[str, str]:
        """Of the GPUs in use those that are lost, and those on which what ran is over."""
        failed = {}
        for uuid in in_use:
            info = self._infos.get(uuid)
            if info is None:
                failed[uuid] = f"this host has no GPU {uuid}"
                continue
            health = self.health(uuid)
            struck = self._struck.get(uuid) or self._struck.get(info.board)
            if health.condition is Condition.LOST:
                failed[uuid] = f"GPU {uuid} is lost: {health.reason}"
            elif struck:
                failed[uuid] = f"GPU {uuid} failed: {struck}"
        return failed

    def _tell(self) -> None:
        healths = {info.uuid: self.health(info.uuid) for info in self._inventory.gpus}
        if healths != self._told:
            for uuid, health in healths.items():
                before = self._told.get(uuid)
                if before != health and (before is not None or health.reason):
                    log.warning("GPU %s is %s%s", uuid, health.condition, _because(health.reason))
            self._told = healths
            self._on_change()

    async def _keep(self) -> None:
        if self._file is None:
            return
        content = _encode(self._charts, self._clock.boot_id)
        if content != self._kept:
            try:
                await asyncio.to_thread(replace_durably, self._file, content)
            except OSError as error:
                log.warning("what is known of the GPUs can't be kept: %s", error)
                return
            self._kept = content


def _after(due: _Due | None, depth: Collection[Depth], now_ms: int) -> _Due:
    if due is None:
        return _Due(sample_ms=now_ms, processes_ms=now_ms, vitals_ms=now_ms)
    return _Due(
        sample_ms=now_ms if Depth.SAMPLE in depth else due.sample_ms,
        processes_ms=now_ms if Depth.PROCESSES in depth else due.processes_ms,
        vitals_ms=now_ms if Depth.VITALS in depth else due.vitals_ms,
    )


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _encode(charts: Mapping[str, Chart], boot_id: str) -> bytes:
    """What a restart of the agent must not forget."""
    gpus = {
        uuid: {
            "memory_at_rest_bytes": chart.memory_at_rest_bytes,
            "xids": list(chart.xids),
            "xid_ms": chart.xid_ms,
            "xid_energy_mj": chart.xid_energy_mj,
        }
        for uuid, chart in charts.items()
    }
    return json.dumps({"boot_id": boot_id, "gpus": gpus}, indent=1).encode()


def _load(file: Path, boot_id: str) -> dict[str, Chart]:
    """Charts as they were kept; a reboot has reset every GPU, so errors from before it count no more."""
    try:
        kept = json.loads(file.read_bytes())
        same_boot = kept["boot_id"] == boot_id
        return {
            uuid: Chart(
                answered_ms=0,
                memory_at_rest_bytes=gpu["memory_at_rest_bytes"],
                xids=tuple(gpu["xids"]) if same_boot else (),
                xid_ms=gpu["xid_ms"] if same_boot else 0,
                xid_energy_mj=gpu["xid_energy_mj"] if same_boot else None,
            )
            for uuid, gpu in kept["gpus"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s can't be read and is begun anew: %s", file, error)
        return {}
