"""GPUs as NVIDIA's driver tells of them, asked through a process that may hang and be ended for it."""

import asyncio
import importlib.util
import json
import logging
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent
from agent.domain.gpu import (
    Depth,
    GpuFault,
    GpuInfo,
    GpuReading,
    GpuSample,
    GpuVitals,
    Inventory,
    Look,
    XidSeen,
)
from agent.gpu.ports import GpuError
from runtime.clock import Clock

log = logging.getLogger(__name__)

KERNEL_LOG = Path("/dev/kmsg")
_PROGRAM = "import sys; sys.path[:0] = sys.argv[1:3]; from agent.gpu.nvml import main; main(sys.argv[3])"
_LINE_BYTES_MAX = 1 << 20
# Processes that hang in the kernel can't be ended at all; with so many of them we ask no more.
_UNDEAD_MAX = 3
_RESTART_MS = 1_000
_RESTART_MS_MAX = 60_000
_ASIDE_MS = 30_000
_ASIDE_MS_MAX = 600_000

# What a seller can do about it, by the library's codes.
_REMEDIES = {
    4: "this user may not ask the driver",
    9: "NVIDIA's driver is installed, but not loaded; reboot or load it",
    12: "NVIDIA's driver is not installed; see [simulated_gpus]",
    18: "the driver was replaced while loaded; reboot this machine",
}

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the driver may take."""

    # To load itself and start its GPUs.
    open_ms: int = 90_000
    # For one GPU's part of an answer.
    part_ms: int = 10_000


class _HungError(Exception):
    """The process does not answer, or is gone; what it did answer is here."""

    def __init__(self, why: str, parts: list[Json], *, hung: bool = False) -> None:
        super().__init__(why)
        self.parts = parts
        self.hung = hung


@dataclass(kw_only=True)
class _Aside:
    """A GPU that made the driver hang is asked rarely, and last."""

    pause_ms: int
    until_ms: int


class NvmlGpus:
    """The GPUs of this machine."""

    def __init__(
        self, clock: Clock, *, kernel_log: Path = KERNEL_LOG, patience: Patience | None = None
    ) -> None:
        self._clock = clock
        self._kernel_log = kernel_log
        self._patience = patience or Patience()
        self._asking = asyncio.Lock()
        self._looks: set[asyncio.Future[Look]] = set()
        self._closed = False
        self._process: Process | None = None
        self._undead: list[Process] = []
        self._restart_pause_ms = _RESTART_MS
        self._restart_at_ms = 0
        self._aside: dict[str, _Aside] = {}
        # Who was being asked when the process ended by itself: once may be chance.
        self._suspect = ""
        # What was told of each GPU, so that one can be left out when the library is opened again.
        self._known: list[Json] = []
        # How often the process had to be started again.
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Of the process that asks; None while there is none."""
        return self._process.pid if self._process else None

    async def open(self) -> Inventory:
        async with self._asking:
            try:
                parts = await self._launch()
            except _HungError as error:
                await self._end()
                raise GpuError(f"NVIDIA's driver does not answer: {error}") from error
        self._known = [part["gpu"] for part in parts if "gpu" in part]
        return _inventory(parts)

    async def look(self, wanted: Mapping[str, Collection[Depth]]) -> Look:
        # Whoever asks may be cancelled; half an answer left in the pipe would be taken for the next one's.
        asking = asyncio.ensure_future(self._look(wanted))
        self._looks.add(asking)
        asking.add_done_callback(self._looks.discard)
        return await asyncio.shield(asking)

    async def _look(self, wanted: Mapping[str, Collection[Depth]]) -> Look:
        async with self._asking:
            if self._closed:
                return Look()
            now_ms = self._clock.boot_ms()
            if self._process is None and not await self._come_back(now_ms):
                return Look(readings=tuple(_silent(uuid) for uuid in wanted if uuid in self._aside))
            resting = {uuid for uuid, aside in self._aside.items() if aside.until_ms > now_ms}
            # Who made it hang before comes last, so that the others have answered by then.
            order = sorted((uuid for uuid in wanted if uuid not in resting), key=lambda u: u in self._aside)
            request = {"do": "read", "gpus": {uuid: list(wanted[uuid]) for uuid in order}}
            try:
                parts = await self._ask(request, self._patience.part_ms)
            except _HungError as error:
                parts = error.parts
                self._blame(order[len(_readings(parts)) :][:1], error)
                await self._end()
            readings = _readings(parts)
            for reading in readings:
                self._aside.pop(reading.uuid, None)
            answered = {reading.uuid for reading in readings}
            silent = [_silent(uuid) for uuid in wanted if uuid in self._aside and uuid not in answered]
            return Look(readings=(*readings, *silent), xids=_xids(parts))

    async def close(self) -> None:
        self._closed = True
        await self._end()
        # Without the process none of them waits any longer.
        await asyncio.gather(*self._looks)

    def _blame(self, culprits: Collection[str], error: _HungError) -> None:
        for uuid in culprits:
            if not error.hung and self._suspect != uuid:
                self._suspect = uuid
                log.warning("%s; starting it again", error)
                continue
            before = self._aside.get(uuid)
            pause_ms = min(2 * before.pause_ms, _ASIDE_MS_MAX) if before else _ASIDE_MS
            self._aside[uuid] = _Aside(pause_ms=pause_ms, until_ms=self._clock.boot_ms() + pause_ms)
            log.warning("GPU %s: %s; asking it again in %d s", uuid, error, pause_ms // 1_000)

    async def _come_back(self, now_ms: int) -> bool:
        """Start the process again, if it is time to."""
        self._undead = [process for process in self._undead if process.returncode is None]
        if now_ms < self._restart_at_ms or len(self._undead) >= _UNDEAD_MAX:
            return False
        self.restarts += 1
        try:
            parts = await self._launch()
        except _HungError as error:
            why = str(error)
        else:
            why = next((part["text"] for part in parts if "error" in part), "")
        if why:
            self._restart_pause_ms = min(2 * self._restart_pause_ms, _RESTART_MS_MAX)
            log.warning("NVIDIA's driver: %s; trying again in %d s", why, self._restart_pause_ms // 1_000)
            await self._end()
            return False
        self._restart_pause_ms = _RESTART_MS
        return True

    async def _launch(self) -> list[Json]:
        binding = importlib.util.find_spec("pynvml")
        if binding is None or binding.origin is None:
            raise GpuError("the package nvidia-ml-py is not installed")
        root = Path(agent.__file__).parent.parent
        self._process = await asyncio.create_subprocess_exec(
            # Without site-packages: it is small and starts in a blink.
            *(sys.executable, "-I", "-S", "-c", _PROGRAM),
            *(str(root), str(Path(binding.origin).parent), str(self._kernel_log)),
            stdin=PIPE,
            stdout=PIPE,
            limit=_LINE_BYTES_MAX,
            cwd="/",
        )
        boards = [(gpu["board"] or gpu["uuid"], gpu) for gpu in self._known if gpu["uuid"] in self._aside]
        hung = {gpu["index"]: (uuid, gpu["bus_id"]) for uuid, gpu in boards}
        return await self._ask({"do": "open", "hung": hung}, self._patience.open_ms)

    async def _ask(self, request: Json, part_ms: int) -> list[Json]:
        """All parts of the answer. Raises _HungError."""
        parts: list[Json] = []
        try:
            await self._exchange(request, part_ms, parts)
        except TimeoutError:
            raise _HungError(f"a call hangs for more than {part_ms} ms", parts, hung=True) from None
        except (OSError, ValueError) as error:
            raise _HungError(f"the process that asks the driver broke: {error}", parts) from error
        if not parts or "done" not in parts[-1]:
            raise _HungError("the process that asks the driver ended", parts)
        return parts

    async def _exchange(self, request: Json, part_ms: int, parts: list[Json]) -> None:
        """Parts of the answer are added as they come, so that what came before a hang is not lost."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        while not parts or "done" not in parts[-1]:
            async with asyncio.timeout(part_ms / 1_000):
                line = await process.stdout.readline()
            if not line:
                return
            parts.append(json.loads(line))

    async def _end(self) -> None:
        """Be rid of the process, without waiting for one that can't be ended."""
        process, self._process = self._process, None
        self._restart_at_ms = self._clock.boot_ms() + self._restart_pause_ms
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        try:
            async with asyncio.timeout(1):
                await process.wait()
        except TimeoutError:
            log.warning("process %d hangs in the driver and can't be ended", process.pid)
            self._undead.append(process)


def _inventory(parts: list[Json]) -> Inventory:
    """Raises GpuError where the library could not be opened."""
    for part in parts:
        if "error" in part:
            raise GpuError(_REMEDIES.get(part["error"], f"NVIDIA's driver says: {part['text']}"))
        if "unheard" in part:
            log.warning("%s can't be read: errors that only the kernel tells of are missed", part["unheard"])
    versions = next(part for part in parts if "driver" in part)
    found = [part["gpu"] for part in parts if "gpu" in part]
    silent = [f"GPU {part['unreadable']}: {part['text']}" for part in parts if "unreadable" in part]
    for told in silent:
        log.warning("it does not answer and is not offered: %s", told)
    divided = {gpu["uuid"] for gpu in found if gpu["divided"]}
    for uuid in divided - {gpu["board"] for gpu in found}:
        log.warning("GPU %s is set up to be divided, but has no slices: nothing of it is offered", uuid)
    return Inventory(
        driver_version=versions["driver"],
        cuda_version=_cuda_version(versions["cuda"]),
        gpus=tuple(_info(gpu) for gpu in found if gpu["uuid"] not in divided),
        boards=tuple(_info(gpu) for gpu in found if gpu["uuid"] in divided),
        silent=tuple(silent),
    )


def _info(gpu: Json) -> GpuInfo:
    return GpuInfo(
        uuid=gpu["uuid"],
        model=gpu["model"],
        vram_bytes=gpu["vram_bytes"],
        simulated=False,
        compute_capability=gpu["capability"],
        board_uuid=gpu["board"],
        bus_id=gpu["bus_id"],
        minor=gpu["minor"],
    )


def _cuda_version(told: int | None) -> str:
    """The driver tells 12040 for 12.4."""
    return "" if told is None else f"{told // 1_000}.{told % 1_000 // 10}"


def _readings(parts: list[Json]) -> list[GpuReading]:
    return [_reading(part) for part in parts if "uuid" in part]


def _reading(part: Json) -> GpuReading:
    uuid = part["uuid"]
    if "fault" in part:
        return GpuReading(uuid=uuid, fault=GpuFault[part["fault"]])
    return GpuReading(
        uuid=uuid,
        sample=GpuSample(uuid=uuid, **part["sample"]) if "sample" in part else None,
        processes=tuple(part["processes"]) if "processes" in part else None,
        unsteady=part.get("draws", False),
        vitals=_vitals(part["vitals"]) if "vitals" in part else None,
    )


def _vitals(told: Json) -> GpuVitals:
    corrected, uncorrected, pending, failed = told.pop("rows", (None, None, None, None))
    return GpuVitals(
        **told,
        rows_remapped=None if corrected is None else corrected + uncorrected,
        remap_pending=None if pending is None else bool(pending),
        remap_failed=None if failed is None else bool(failed),
    )


def _xids(parts: list[Json]) -> tuple[XidSeen, ...]:
    """Most numbers come both ways, from the library and in the kernel's log: they are the same ones."""
    counts: dict[tuple[str, int], int] = {}
    for part in parts:
        for _, uuid, number, count in part.get("news", ()):
            counts[uuid, number] = max(count, counts.get((uuid, number), 0))
    return tuple(XidSeen(uuid=uuid, number=number, count=count) for (uuid, number), count in counts.items())


def _silent(uuid: str) -> GpuReading:
    return GpuReading(uuid=uuid, fault=GpuFault.SILENT)
