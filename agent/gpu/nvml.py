"""The process beside the agent that asks NVIDIA's driver. The only module that speaks to its library.

A call of the library may hang for ever, and a thread that hangs in it can't be ended: so it is called in a
process of its own, which the agent can end and start again. The library is opened once in that process's
life: opening it often is slow and has hung. It stays small: no gRPC, no event loop, no dataclasses.

It answers one request at a time. A request is a line of JSON; so is each part of an answer, and the last part
says `done`. What it can't be asked for, error numbers that the driver gives on its own, it counts and hands
over with the next answer. It ends with its standard input, or with the agent, whichever is first.
"""

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pynvml

from agent.domain.xid import from_kernel_log, place

# Codes that say what is wrong with a GPU, whatever was asked of it, and the names that the agent has for it.
_FATAL = {pynvml.NVML_ERROR_GPU_IS_LOST: "LOST", pynvml.NVML_ERROR_RESET_REQUIRED: "RESET_REQUIRED"}
_FAULTS = {**_FATAL, pynvml.NVML_ERROR_NOT_FOUND: "GONE"}
_NOT_TOLD = (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
_EVENT_WAIT_MS = 1_000
_PAUSE_S = 1.0
# Kinds of news that may wait for the next request. A job that fails in all ways at once makes a few dozen.
_NEWS_MAX = 512
_PR_SET_PDEATHSIG = 1
_WHOLE = 0xFFFFFFFF

Json = dict[str, Any]
_T = TypeVar("_T")


class News:
    """What the driver gave on its own: counted, so that a flood of it takes no room."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str, int], int] = {}

    def add(self, source: str, uuid: str, number: int) -> None:
        key = (source, uuid, number)
        with self._lock:
            if key in self._counts or len(self._counts) < _NEWS_MAX:
                self._counts[key] = self._counts.get(key, 0) + 1

    def take(self) -> list[list[Any]]:
        with self._lock:
            counts, self._counts = self._counts, {}
        return [[source, uuid, number, count] for (source, uuid, number), count in counts.items()]


class Asker:
    """Answers requests out of the library."""

    def __init__(self) -> None:
        self.news = News()
        self._handles: dict[str, pynvml.c_nvmlDevice_t] = {}
        # What a device has said that it does not tell; it is not asked for it again before its next vitals.
        self._untold: dict[str, set[str]] = {}
        self._slices: set[str] = set()
        # UUIDs of the slices of a board by the number of their instance.
        self._instances: dict[tuple[str, int], list[str]] = {}
        # Where on the bus each board is.
        self._places: dict[str, str] = {}
        self._boards: list[str] = []
        self._events: pynvml.c_nvmlEventSet_t | None = None

    def open(self, hung: dict[str, list[str]]) -> Iterable[Json]:
        """What is here. Those at an index of `hung` are known (UUID, place) and are not to be touched."""
        try:
            pynvml.nvmlInit()
            yield {
                "driver": pynvml.nvmlSystemGetDriverVersion(),
                "cuda": _if_told(pynvml.nvmlSystemGetCudaDriverVersion),
            }
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            yield {"error": error.value, "text": str(error)}
            return
        for index in range(count):
            if str(index) in hung:
                uuid, bus_id = hung[str(index)]
                self._places[place(bus_id)] = uuid
                continue
            try:
                yield from self._board(index)
            except pynvml.NVMLError as error:
                yield {"unreadable": index, "text": str(error)}

    def _board(self, index: int) -> Iterable[Json]:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = pynvml.nvmlDeviceGetUUID(handle)
        mode = _if_told(lambda: pynvml.nvmlDeviceGetMigMode(handle)[0])
        divided = mode == pynvml.NVML_DEVICE_MIG_ENABLE
        capability = _if_told(lambda: pynvml.nvmlDeviceGetCudaComputeCapability(handle))
        bus_id = _if_told(lambda: pynvml.nvmlDeviceGetPciInfo(handle).busId)
        common: Json = {
            "capability": f"{capability[0]}.{capability[1]}" if capability else "",
            "bus_id": _text(bus_id or ""),
            "minor": _if_told(lambda: pynvml.nvmlDeviceGetMinorNumber(handle)),
        }
        self._boards.append(uuid)
        self._handles[uuid] = handle
        if common["bus_id"]:
            self._places[place(common["bus_id"])] = uuid
        common["index"] = index
        yield {"gpu": {"uuid": uuid, **_named(handle), **common, "divided": divided, "board": ""}}
        if divided:
            for slice_ in self._slices_of(handle, uuid):
                yield {"gpu": {**slice_, **common, "divided": False, "board": uuid}}

    def _slices_of(self, board: pynvml.c_nvmlDevice_t, board_uuid: str) -> Iterable[Json]:
        for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(board)):
            try:
                handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(board, index)
            except pynvml.NVMLError as error:
                if error.value in (pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT):
                    continue  # no slice in this place
                raise
            uuid = pynvml.nvmlDeviceGetUUID(handle)
            instance = _if_told(partial(pynvml.nvmlDeviceGetGpuInstanceId, handle))
            if instance is not None:
                self._instances.setdefault((board_uuid, instance), []).append(uuid)
            self._handles[uuid] = handle
            self._slices.add(uuid)
            yield {"uuid": uuid, **_named(handle)}

    def read(self, wanted: dict[str, list[str]]) -> Iterable[Json]:
        for uuid, depth in wanted.items():
            try:
                yield {"uuid": uuid, **self._read(uuid, depth)}
            except pynvml.NVMLError as error:
                self._handles.pop(uuid, None)
                yield {"uuid": uuid, "fault": _FAULTS.get(error.value, "FAILING"), "text": str(error)}

    def _read(self, uuid: str, depth: list[str]) -> Json:
        if uuid not in self._handles:
            self._handles[uuid] = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        handle, told = self._handles[uuid], {}
        if "sample" in depth:
            told["sample"] = self._figures(uuid, handle, _SLICE_SAMPLE if uuid in self._slices else _SAMPLE)
        if "processes" in depth:
            told.update(self._figures(uuid, handle, _PROCESSES))
        if "vitals" in depth and uuid not in self._slices:
            self._untold.pop(uuid, None)
            told["vitals"] = self._figures(uuid, handle, _VITALS)
        return told

    def _figures(
        self, uuid: str, handle: pynvml.c_nvmlDevice_t, figures: dict[str, Callable[[Any], Any]]
    ) -> Json:
        """Raises what is wrong with the whole GPU; a single sensor that fails is only absent."""
        told, failed = {}, None
        untold = self._untold.setdefault(uuid, set())
        for name, ask in figures.items():
            if name in untold:
                continue
            try:
                value = _if_told(partial(ask, handle))
            except pynvml.NVMLError as error:
                if error.value in _FATAL:
                    raise
                failed = error
                continue
            if value is None:
                untold.add(name)
            else:
                told[name] = value
        if failed is not None and not told:
            raise failed
        return told

    # What comes unasked

    def prepare(self) -> None:
        """From here on no error goes unheard."""
        with suppress(pynvml.NVMLError):
            self._events = self._event_set()

    def listen(self) -> None:
        """Hear of errors for ever: to be run in a thread."""
        pause = threading.Event()
        while True:
            try:
                self._events = self._events or self._event_set()
                event = pynvml.nvmlEventSetWait_v2(self._events, _EVENT_WAIT_MS)
                self._heard(event)
            except pynvml.NVMLError as error:
                if error.value != pynvml.NVML_ERROR_TIMEOUT:
                    # One GPU is lost, say; of the others there may still be news.
                    pause.wait(_PAUSE_S)

    def _event_set(self) -> pynvml.c_nvmlEventSet_t:
        events = pynvml.nvmlEventSetCreate()
        for uuid in self._boards:
            try:
                handle = self._handles.get(uuid) or pynvml.nvmlDeviceGetHandleByUUID(uuid)
                # Whoever asks for more than is supported gets nothing.
                if pynvml.nvmlDeviceGetSupportedEventTypes(handle) & pynvml.nvmlEventTypeXidCriticalError:
                    pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
            except pynvml.NVMLError:
                continue  # an old card, or a lost one; the kernel's log tells of both
        return events

    def _heard(self, event: pynvml.c_nvmlEventData_t) -> None:
        if event.eventType == pynvml.nvmlEventTypeXidCriticalError:
            uuid = pynvml.nvmlDeviceGetUUID(event.device)
            for struck in self._struck(uuid, int(event.gpuInstanceId)):
                self.news.add("library", struck, int(event.eventData))

    def _struck(self, board_uuid: str, instance: int) -> list[str]:
        """The slices that an error concerns; the whole board where none is named."""
        whole = [board_uuid]
        return whole if instance == _WHOLE else self._instances.get((board_uuid, instance), whole)

    def follow(self, file: int) -> None:
        """Read the kernel's log as it grows: to be run in a thread. Some errors are told nowhere else."""
        while True:
            try:
                record = os.read(file, 8_192)
            except BrokenPipeError:
                continue  # the kernel has overwritten what was next; the next read is of what is there
            if not record:
                return
            for line in record.decode(errors="replace").splitlines():
                self._logged(line)

    def _logged(self, line: str) -> None:
        found = from_kernel_log(line)
        if found is not None and found[0] in self._places:
            where, instance, number = found
            for struck in self._struck(self._places[where], _WHOLE if instance is None else instance):
                self.news.add("kernel", struck, number)


def _named(handle: pynvml.c_nvmlDevice_t) -> Json:
    return {
        "model": _text(pynvml.nvmlDeviceGetName(handle)),
        "vram_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
    }


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _memory_used_bytes(handle: pynvml.c_nvmlDevice_t) -> int:
    """Without what the driver keeps for itself, where it tells that apart."""
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2).used)
    except pynvml.NVMLError as error:
        if error.value not in _NOT_TOLD:
            raise
    return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)


def _ecc(kind: int) -> Callable[[Any], int]:
    return lambda handle: int(pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, pynvml.NVML_VOLATILE_ECC))


def _advice(handle: pynvml.c_nvmlDevice_t) -> int | None:
    """What the driver would do about the GPU; drivers before 570 do not say."""
    (field,) = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    return int(field.value.uiVal) if field.nvmlReturn == pynvml.NVML_SUCCESS else None


def _pids(handle: pynvml.c_nvmlDevice_t) -> list[int]:
    return sorted({int(each.pid) for each in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)})


_SLICE_SAMPLE: dict[str, Callable[[Any], Any]] = {"memory_used_bytes": _memory_used_bytes}
_SAMPLE: dict[str, Callable[[Any], Any]] = {
    **_SLICE_SAMPLE,
    "utilization_percent": lambda h: int(pynvml.nvmlDeviceGetUtilizationRates(h).gpu),
    "energy_mj_total": lambda h: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(h)),
    "power_mw": lambda h: int(pynvml.nvmlDeviceGetPowerUsage(h)),
    "temperature_c": lambda h: int(pynvml.nvmlDeviceGetTemperature(h, pynvml.NVML_TEMPERATURE_GPU)),
    "sm_clock_mhz": lambda h: int(pynvml.nvmlDeviceGetClockInfo(h, pynvml.NVML_CLOCK_SM)),
    "throttle_bits": lambda h: int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(h)),
}
_PROCESSES: dict[str, Callable[[Any], Any]] = {
    "processes": _pids,
    "draws": lambda h: bool(pynvml.nvmlDeviceGetGraphicsRunningProcesses(h)),
}
_VITALS: dict[str, Callable[[Any], Any]] = {
    "ecc_corrected": _ecc(pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
    "ecc_uncorrected": _ecc(pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
    "rows": lambda h: [int(value) for value in pynvml.nvmlDeviceGetRemappedRows(h)],
    "recovery_action": _advice,
    "pcie_generation": lambda h: int(pynvml.nvmlDeviceGetCurrPcieLinkGeneration(h)),
    "pcie_width": lambda h: int(pynvml.nvmlDeviceGetCurrPcieLinkWidth(h)),
    "pcie_replays": lambda h: int(pynvml.nvmlDeviceGetPcieReplayCounter(h)),
    "performance_state": lambda h: int(pynvml.nvmlDeviceGetPerformanceState(h)),
    "fan_percent": lambda h: int(pynvml.nvmlDeviceGetFanSpeed(h)),
}


def _if_told(ask: Callable[[], _T]) -> _T | None:
    """None where this device or driver does not tell; never 0. A device that fails is another thing."""
    try:
        return ask()
    except pynvml.NVMLError as error:
        if error.value in _NOT_TOLD or error.value == pynvml.NVML_ERROR_NO_PERMISSION:
            return None
        raise


def _say(part: Json) -> None:
    sys.stdout.write(json.dumps(part, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def main(kernel_log: str) -> None:
    """Serve until nobody asks any more."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    asker = Asker()
    # Whoever asked may be killed before it has its answer.
    with suppress(BrokenPipeError):
        for line in sys.stdin:
            request = json.loads(line)
            opens = request["do"] == "open"
            for part in asker.open(request["hung"]) if opens else asker.read(request["gpus"]):
                _say(part)
            if opens:
                _listen(asker, kernel_log)
            _say({"done": True, "news": asker.news.take()})
    # A thread may hang in the library; nothing of ours is left to be done.
    os._exit(0)


def _listen(asker: Asker, kernel_log: str) -> None:
    asker.prepare()
    threading.Thread(target=asker.listen, daemon=True).start()
    try:
        file = os.open(kernel_log, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        _say({"unheard": kernel_log})
        return
    with suppress(OSError):  # a pipe has no end to go to
        os.lseek(file, 0, os.SEEK_END)
    threading.Thread(target=asker.follow, args=(file,), daemon=True).start()
