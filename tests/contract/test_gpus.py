"""What every source of GPUs must do, whether the driver tells of them or nobody has any."""

from collections.abc import Iterator

import pytest

from agent.gpu.nvml import NvmlGpus
from agent.gpu.ports import GpuError, Gpus
from agent.gpu.simulated import SimulatedGpus
from runtime.clock import SystemClock
from tests.rig.gpus import FOUR_GPUS
from tests.rig.nvml.build import NvmlStub
from tests.rig.nvml.state import DATACENTRE_CARD, Fault


@pytest.fixture(params=["simulated", pytest.param("nvml", marks=pytest.mark.nvml)])
def gpus(request: pytest.FixtureRequest) -> Iterator[Gpus]:
    """Two GPUs of one source."""
    found: Gpus
    if request.param == "nvml":
        stub = request.getfixturevalue("nvml_stub")
        stub.load()
        stub.state.add_gpu(FOUR_GPUS[0])
        stub.state.add_gpu(FOUR_GPUS[1], DATACENTRE_CARD)
        found = NvmlGpus()
    else:
        found = SimulatedGpus(
            count=2, model="SIMULATED GPU", vram_bytes=24 << 30, seed="a", clock=SystemClock()
        )
    yield found
    found.close()


def test_the_inventory_is_stable_and_whole(gpus):
    first = gpus.inventory()
    assert first == gpus.inventory()
    assert len({gpu.uuid for gpu in first}) == 2
    assert all(gpu.vram_bytes > 0 and gpu.model for gpu in first)


def test_a_simulated_gpu_says_so_and_a_real_one_does_not(gpus):
    for gpu in gpus.inventory():
        assert gpu.simulated == gpu.uuid.startswith("SIMULATED-")
        assert gpu.simulated == ("SIMULATED" in gpu.model)


def test_a_sample_is_of_what_was_asked(gpus):
    first, second = (gpu.uuid for gpu in gpus.inventory())
    assert [sample.uuid for sample in gpus.sample([second])] == [second]
    for sample in gpus.sample([first, second]):
        assert sample.utilization_percent is None or 0 <= sample.utilization_percent <= 100
        assert sample.memory_used_bytes is None or sample.memory_used_bytes >= 0


def test_a_gpu_that_is_not_here_is_left_out(gpus):
    gpus.inventory()
    assert gpus.sample(["GPU-of-somebody-else"]) == ()


def test_energy_never_falls(gpus):
    uuid = gpus.inventory()[0].uuid
    readings = [gpus.sample([uuid])[0].energy_mj_total for _ in range(3)]
    assert None not in readings
    assert readings == sorted(readings)


def test_simulated_gpus_have_no_driver():
    made = SimulatedGpus(count=1, model="m", vram_bytes=1, seed="a", clock=SystemClock())
    assert (made.driver_version, made.cuda_version) == ("", "")


def test_simulated_gpus_are_their_hosts_own():
    def uuids(seed: str) -> set[str]:
        made = SimulatedGpus(count=3, model="m", vram_bytes=1, seed=seed, clock=SystemClock())
        return {gpu.uuid for gpu in made.inventory()}

    assert uuids("a") == uuids("a")
    assert not uuids("a") & uuids("b")


@pytest.mark.nvml
class TestNvml:
    """What only a driver can do."""

    @pytest.fixture
    def stub(self, nvml_stub: NvmlStub) -> NvmlStub:
        nvml_stub.load()
        nvml_stub.state.add_gpu(FOUR_GPUS[0])
        nvml_stub.state.add_gpu(FOUR_GPUS[1], DATACENTRE_CARD)
        return nvml_stub

    def test_it_tells_what_the_driver_tells(self, stub):
        found = NvmlGpus()
        assert (found.driver_version, found.cuda_version) == ("550.54.15", "12.4")
        first, second = found.inventory()
        assert (first.uuid, first.model, first.vram_bytes) == (
            FOUR_GPUS[0].uuid,
            "NVIDIA GeForce RTX 4090",
            24 << 30,
        )
        assert (first.compute_capability, second.compute_capability) == ("8.9", "8.0")
        stub.state.set_gpu(0, utilization_percent=97, energy_mj=2**40, memory_used_bytes=5 << 30)
        (sample,) = found.sample([first.uuid])
        assert sample.utilization_percent == 97
        assert sample.memory_used_bytes == 5 << 30
        assert sample.energy_mj_total == 2**40

    def test_what_is_not_supported_is_absent_not_zero(self, stub):
        found = NvmlGpus()
        uuid = found.inventory()[0].uuid
        stub.state.set_gpu(0, utilization_percent=None, energy_mj=None)
        (sample,) = found.sample([uuid])
        assert sample.utilization_percent is None
        assert sample.energy_mj_total is None
        assert sample.memory_used_bytes is not None

    def test_a_lost_gpu_is_left_out_and_its_neighbour_is_not(self, stub):
        found = NvmlGpus()
        lost, well = (gpu.uuid for gpu in found.inventory())
        stub.state.fail_gpu(0)
        assert [sample.uuid for sample in found.sample([lost, well])] == [well]
        assert [gpu.uuid for gpu in found.inventory()] == [well]

    def test_a_divided_gpu_is_not_offered_whole(self, stub):
        stub.state.add_slice(1, 0, "MIG-a", memory_bytes=10 << 30)
        assert [gpu.uuid for gpu in NvmlGpus().inventory()] == [FOUR_GPUS[0].uuid]

    @pytest.mark.parametrize(
        ("fault", "word"),
        [
            (Fault.DRIVER_NOT_LOADED, "not loaded"),
            (Fault.LIBRARY_AND_DRIVER_DIFFER, "reboot"),
            (Fault.UNKNOWN, "Unknown"),
        ],
    )
    def test_a_driver_in_trouble_is_named(self, stub, fault, word):
        stub.state.fail("nvmlInitWithFlags", fault)
        with pytest.raises(GpuError, match=word):
            NvmlGpus()
