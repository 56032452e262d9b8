"""The stand-in speaks with the real binding, nvidia-ml-py, as NVIDIA's library would."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pynvml
import pytest

from tests.rig.gpus import FOUR_GPUS
from tests.rig.nvml.build import NvmlStub
from tests.rig.nvml.state import DATACENTRE_CARD, Fault, NvmlState

pytestmark = pytest.mark.nvml


@pytest.fixture
def state(nvml_stub: NvmlStub) -> NvmlState:
    """A consumer card and a data centre's card, and the binding at work."""
    nvml_stub.load()
    nvml_stub.state.add_gpu(FOUR_GPUS[0])
    nvml_stub.state.add_gpu(FOUR_GPUS[1], DATACENTRE_CARD)
    pynvml.nvmlInit()
    return nvml_stub.state


def code_of(call: Callable[..., object], *arguments: object) -> int:
    with pytest.raises(pynvml.NVMLError) as caught:
        call(*arguments)
    return int(caught.value.value)


def handle(index: int) -> pynvml.c_nvmlDevice_t:
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def test_identity(state):
    assert pynvml.nvmlSystemGetDriverVersion() == "550.54.15"
    assert pynvml.nvmlSystemGetCudaDriverVersion() == 12040
    assert pynvml.nvmlDeviceGetCount() == 2
    assert code_of(pynvml.nvmlDeviceGetHandleByIndex, 2) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    card = pynvml.nvmlDeviceGetHandleByUUID(FOUR_GPUS[1].uuid)
    assert pynvml.nvmlDeviceGetIndex(card) == pynvml.nvmlDeviceGetMinorNumber(card) == 1
    assert pynvml.nvmlDeviceGetName(card) == "NVIDIA A100-SXM4-80GB"
    assert pynvml.nvmlDeviceGetPciInfo(card).busId == "00000000:02:00.0"
    assert pynvml.nvmlDeviceGetCudaComputeCapability(card) == (8, 0)
    assert code_of(pynvml.nvmlDeviceGetHandleByUUID, "GPU-none") == pynvml.NVML_ERROR_NOT_FOUND


def test_readings(state):
    state.set_gpu(0, utilization_percent=97, power_mw=333_000, energy_mj=2**40, memory_used_bytes=5 << 30)
    card = handle(0)
    assert pynvml.nvmlDeviceGetUtilizationRates(card).gpu == 97
    assert pynvml.nvmlDeviceGetPowerUsage(card) == 333_000
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(card) == 2**40
    assert pynvml.nvmlDeviceGetTemperature(card, pynvml.NVML_TEMPERATURE_GPU) == 40
    assert pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM) == 210
    memory = pynvml.nvmlDeviceGetMemoryInfo(card, version=pynvml.nvmlMemory_v2)
    assert (memory.total, memory.used, memory.reserved) == (24 << 30, 5 << 30, 300 << 20)
    assert memory.free == memory.total - memory.used - memory.reserved
    assert pynvml.nvmlDeviceGetMemoryInfo(card).free == 19 << 30


def test_what_a_card_lacks_is_not_supported(state):
    card = handle(0)
    for call in (pynvml.nvmlDeviceGetEccMode, pynvml.nvmlDeviceGetRemappedRows, pynvml.nvmlDeviceGetMigMode):
        assert code_of(call, card) == pynvml.NVML_ERROR_NOT_SUPPORTED
    assert code_of(pynvml.nvmlDeviceGetFanSpeed, handle(1)) == pynvml.NVML_ERROR_NOT_SUPPORTED
    assert pynvml.nvmlDeviceGetRemappedRows(handle(1)) == (0, 0, 0, 0)
    state.set_gpu(0, energy_mj=None)
    assert code_of(pynvml.nvmlDeviceGetTotalEnergyConsumption, card) == pynvml.NVML_ERROR_NOT_SUPPORTED


def test_a_function_newer_than_the_driver_is_not_found(state):
    assert code_of(pynvml.nvmlDeviceGetSramEccErrorStatus, handle(1), None) == (
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    )


def test_processes(state):
    state.set_gpu(0, compute_processes=",".join(f"{4000 + n}:{n << 30}" for n in range(1, 4)))
    found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle(0))
    assert [(each.pid, each.usedGpuMemory) for each in found] == [(4000 + n, n << 30) for n in range(1, 4)]
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(handle(1)) == []


def test_slices(state):
    state.add_slice(1, 0, "MIG-a", memory_bytes=10 << 30)
    state.add_slice(1, 2, "MIG-c", memory_bytes=20 << 30)
    card = handle(1)
    assert pynvml.nvmlDeviceGetMigMode(card) == [1, 1]
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(card) == 7
    assert code_of(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, card, 1) == pynvml.NVML_ERROR_NOT_FOUND
    one = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, 2)
    assert pynvml.nvmlDeviceGetUUID(one) == "MIG-c"
    assert pynvml.nvmlDeviceGetGpuInstanceId(one) == 3
    assert pynvml.nvmlDeviceGetMemoryInfo(one).total == 20 << 30
    assert code_of(pynvml.nvmlDeviceGetUtilizationRates, one) == pynvml.NVML_ERROR_NOT_SUPPORTED
    whole = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(one)
    assert pynvml.nvmlDeviceGetUUID(whole) == FOUR_GPUS[1].uuid


def test_a_lost_gpu_and_its_neighbour(state):
    lost, well = handle(0), handle(1)
    state.fail_gpu(0)
    assert code_of(pynvml.nvmlDeviceGetUUID, lost) == pynvml.NVML_ERROR_GPU_IS_LOST
    assert code_of(pynvml.nvmlDeviceGetHandleByIndex, 0) == pynvml.NVML_ERROR_GPU_IS_LOST
    assert pynvml.nvmlDeviceGetUUID(well) == FOUR_GPUS[1].uuid
    state.heal_gpu(0)
    assert pynvml.nvmlDeviceGetUUID(lost) == FOUR_GPUS[0].uuid


def test_one_call_fails_for_all_or_for_one(state):
    state.fail("nvmlDeviceGetPowerUsage", Fault.UNKNOWN)
    assert code_of(pynvml.nvmlDeviceGetPowerUsage, handle(1)) == pynvml.NVML_ERROR_UNKNOWN
    state.heal("nvmlDeviceGetPowerUsage")
    state.fail("nvmlDeviceGetPowerUsage", Fault.NO_PERMISSION, index=1)
    assert pynvml.nvmlDeviceGetPowerUsage(handle(0)) == 20_000
    assert code_of(pynvml.nvmlDeviceGetPowerUsage, handle(1)) == pynvml.NVML_ERROR_NO_PERMISSION


def test_a_driver_that_was_replaced_under_way(state):
    state.fail("nvmlInitWithFlags", Fault.LIBRARY_AND_DRIVER_DIFFER)
    assert code_of(pynvml.nvmlInit) == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH


def test_without_init_nothing_answers(state):
    pynvml.nvmlShutdown()
    assert code_of(pynvml.nvmlDeviceGetCount) == pynvml.NVML_ERROR_UNINITIALIZED


def test_a_call_that_hangs_holds_up_only_its_own_thread(state):
    card = handle(0)
    state.delay("nvmlDeviceGetPowerUsage", 300)
    slow = threading.Thread(target=pynvml.nvmlDeviceGetPowerUsage, args=(card,))
    begun = time.monotonic()
    slow.start()
    assert pynvml.nvmlDeviceGetIndex(card) == 0
    assert time.monotonic() - begun < 0.2
    assert slow.is_alive()
    slow.join()
    assert time.monotonic() - begun >= 0.3


def test_an_xid_reaches_those_who_wait_once(state):
    card = handle(0)
    state.xid(0, 13)  # before the set was made: nobody hears of it
    events = pynvml.nvmlEventSetCreate()
    pynvml.nvmlDeviceRegisterEvents(card, pynvml.nvmlEventTypeXidCriticalError, events)
    assert code_of(pynvml.nvmlEventSetWait_v2, events, 10) == pynvml.NVML_ERROR_TIMEOUT
    later = threading.Timer(0.05, state.xid, (0, 79))
    later.start()
    event = pynvml.nvmlEventSetWait_v2(events, 5_000)
    later.join()
    assert event.eventData == 79
    assert pynvml.nvmlDeviceGetUUID(event.device) == FOUR_GPUS[0].uuid
    assert code_of(pynvml.nvmlEventSetWait_v2, events, 10) == pynvml.NVML_ERROR_TIMEOUT
    every_type = pynvml.nvmlEventTypeAll
    assert code_of(pynvml.nvmlDeviceRegisterEvents, card, every_type, events) == (
        pynvml.NVML_ERROR_NOT_SUPPORTED
    )
    pynvml.nvmlEventSetFree(events)


def test_another_process_finds_it_by_its_environment(nvml_stub):
    nvml_stub.state.add_gpu(FOUR_GPUS[2], name="NVIDIA H100")
    script = (
        "import pynvml; pynvml.nvmlInit(); "
        "print(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)))"
    )
    output = subprocess.check_output([sys.executable, "-c", script], env=nvml_stub.env(), text=True)
    assert output == "NVIDIA H100\n"
