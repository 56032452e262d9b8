"""What every source of GPUs must do, whether the driver tells of them, a script, or nobody has any."""

from collections.abc import Callable

import pytest

from agent.domain.gpu import Depth, GpuFault
from agent.gpu.driver import NvmlGpus
from agent.gpu.fake import FakeGpus
from agent.gpu.ports import GpuError, Gpus
from agent.gpu.simulated import SimulatedGpus
from tests.rig.gpus import FOUR_GPUS
from tests.rig.nvml.build import NvmlStub
from tests.rig.nvml.state import Fault
from tests.support.gpus import ALL, CLOCK, NOTHING, Story, news, play, read


@pytest.fixture(params=["simulated", "fake", pytest.param("nvml", marks=pytest.mark.nvml)])
def tell(request: pytest.FixtureRequest) -> Callable[[Story], None]:
    """Runs a story with two GPUs of one source."""
    gpus: Gpus
    if request.param == "nvml":
        request.getfixturevalue("two_cards")
        gpus = NvmlGpus(CLOCK, kernel_log=NOTHING)
    elif request.param == "fake":
        gpus = FakeGpus("GPU-a", "GPU-b")
    else:
        gpus = SimulatedGpus(count=2, model="SIMULATED GPU", vram_bytes=24 << 30, seed="a", clock=CLOCK)
    return lambda story: play(gpus, story)


def test_the_inventory_is_whole(tell):
    async def story(gpus: Gpus) -> None:
        found = (await gpus.open()).gpus
        assert len({gpu.uuid for gpu in found}) == 2
        assert all(gpu.vram_bytes > 0 and gpu.model and gpu.board == gpu.uuid for gpu in found)

    tell(story)


def test_a_simulated_gpu_says_so_and_a_real_one_does_not(tell):
    async def story(gpus: Gpus) -> None:
        for gpu in (await gpus.open()).gpus:
            assert gpu.simulated == gpu.uuid.startswith("SIMULATED-")
            assert gpu.simulated == ("SIMULATED" in gpu.model)

    tell(story)


def test_a_look_brings_what_was_asked_of_whom_it_was_asked(tell):
    async def story(gpus: Gpus) -> None:
        first, second = (gpu.uuid for gpu in (await gpus.open()).gpus)
        look = await gpus.look({second: [Depth.SAMPLE], first: [Depth.PROCESSES, Depth.VITALS]})
        by_uuid = {reading.uuid: reading for reading in look.readings}
        assert by_uuid.keys() == {first, second}
        assert by_uuid[second].sample is not None
        assert (by_uuid[second].processes, by_uuid[second].vitals) == (None, None)
        assert by_uuid[first].sample is None
        assert by_uuid[first].processes == ()
        assert by_uuid[first].vitals is not None
        assert look.xids == ()
        sample = by_uuid[second].sample
        assert sample is not None
        assert sample.uuid == second
        assert 0 <= (sample.utilization_percent or 0) <= 100
        assert (sample.memory_used_bytes or 0) >= 0

    tell(story)


def test_a_look_at_nothing_brings_nothing(tell):
    async def story(gpus: Gpus) -> None:
        await gpus.open()
        look = await gpus.look({})
        assert (look.readings, look.xids) == ((), ())

    tell(story)


def test_energy_never_falls(tell):
    async def story(gpus: Gpus) -> None:
        uuid = (await gpus.open()).gpus[0].uuid
        told = [(await read(gpus, uuid)).sample for _ in range(3)]
        readings = [sample.energy_mj_total or 0 for sample in told if sample is not None]
        assert len(readings) == 3
        assert readings == sorted(readings)

    tell(story)


def test_simulated_gpus_are_their_hosts_own():
    def uuids(seed: str) -> set[str]:
        made = SimulatedGpus(count=3, model="m", vram_bytes=1, seed=seed, clock=CLOCK)
        return {gpu.uuid for gpu in made.infos}

    assert uuids("a") == uuids("a")
    assert not uuids("a") & uuids("b")


@pytest.mark.nvml
class TestNvml:
    """What only a driver can do: the real binding in its own process, on the stand-in for the library."""

    @pytest.fixture
    def gpus(self, two_cards: NvmlStub) -> NvmlGpus:
        return NvmlGpus(CLOCK, kernel_log=NOTHING)

    def test_it_tells_what_the_driver_tells(self, two_cards, gpus):
        async def story(gpus: Gpus) -> None:
            found = await gpus.open()
            assert (found.driver_version, found.cuda_version, found.boards) == ("550.54.15", "12.4", ())
            first, second = found.gpus
            assert (first.uuid, first.model, first.vram_bytes) == (
                FOUR_GPUS[0].uuid,
                "NVIDIA GeForce RTX 4090",
                24 << 30,
            )
            assert (first.compute_capability, second.compute_capability) == ("8.9", "8.0")
            assert (second.bus_id, second.minor) == ("00000000:02:00.0", 1)
            two_cards.state.set_gpu(
                0,
                utilization_percent=97,
                energy_mj=2**40,
                memory_used_bytes=5 << 30,
                **{"power_mw": 333_000, "temperature_c.0": 71, "clock_mhz.1": 2_520, "throttle_bits": 4},
                compute_processes="4711:1048576,17:5",
                graphics_processes="99:1",
            )
            reading = await read(gpus, first.uuid)
            sample = reading.sample
            assert sample is not None
            assert (sample.utilization_percent, sample.memory_used_bytes) == (97, 5 << 30)
            assert (sample.energy_mj_total, sample.power_mw, sample.temperature_c) == (2**40, 333_000, 71)
            assert (sample.sm_clock_mhz, sample.throttle_bits) == (2_520, 4)
            assert (reading.processes, reading.unsteady) == ((17, 4711), True)
            assert reading.vitals is not None
            assert (reading.vitals.pcie_width, reading.vitals.fan_percent) == (16, 30)

        play(gpus, story)

    def test_what_is_not_supported_is_absent_never_zero(self, two_cards, gpus):
        async def story(gpus: Gpus) -> None:
            consumer, datacentre = (gpu.uuid for gpu in (await gpus.open()).gpus)
            vitals = (await read(gpus, consumer)).vitals
            assert vitals is not None
            assert (vitals.ecc_corrected, vitals.ecc_uncorrected, vitals.rows_remapped) == (None, None, None)
            assert (vitals.remap_pending, vitals.remap_failed) == (None, None)
            vitals = (await read(gpus, datacentre)).vitals
            assert vitals is not None
            assert (vitals.ecc_uncorrected, vitals.rows_remapped, vitals.remap_failed) == (0, 0, False)
            assert vitals.fan_percent is None
            two_cards.state.set_gpu(0, utilization_percent=None, energy_mj=None)
            sample = (await read(gpus, consumer)).sample
            assert sample is not None
            assert (sample.utilization_percent, sample.energy_mj_total) == (None, None)
            assert sample.memory_used_bytes is not None

        play(gpus, story)

    def test_one_sensor_that_fails_is_absent_and_the_gpu_goes_on(self, two_cards, gpus):
        async def story(gpus: Gpus) -> None:
            uuid = (await gpus.open()).gpus[0].uuid
            two_cards.state.fail("nvmlDeviceGetPowerUsage", Fault.UNKNOWN)
            sample = (await read(gpus, uuid)).sample
            assert sample is not None
            assert (sample.power_mw, sample.temperature_c) == (None, 40)
            two_cards.state.heal("nvmlDeviceGetPowerUsage")
            sample = (await read(gpus, uuid)).sample
            assert sample is not None
            assert sample.power_mw == 20_000

        play(gpus, story)

    @pytest.mark.parametrize(
        ("code", "fault"),
        [
            (Fault.GPU_IS_LOST, GpuFault.LOST),
            (Fault.RESET_REQUIRED, GpuFault.RESET_REQUIRED),
            (Fault.UNKNOWN, GpuFault.FAILING),
        ],
    )
    def test_a_lost_gpu_says_so_and_its_neighbour_goes_on(self, two_cards, gpus, code, fault):
        async def story(gpus: Gpus) -> None:
            lost, well = (gpu.uuid for gpu in (await gpus.open()).gpus)
            two_cards.state.fail_gpu(0, code)
            look = await gpus.look({lost: ALL, well: ALL})
            assert [(reading.uuid, reading.fault) for reading in look.readings] == [
                (lost, fault),
                (well, None),
            ]
            two_cards.state.heal_gpu(0)
            assert (await read(gpus, lost)).fault is None

        play(gpus, story)

    def test_what_the_driver_advises(self, two_cards, gpus):
        async def story(gpus: Gpus) -> None:
            old, new = (gpu.uuid for gpu in (await gpus.open()).gpus)
            two_cards.state.set_gpu(1, recovery_action=1)
            for uuid, advice in ((old, None), (new, 1)):
                vitals = (await read(gpus, uuid)).vitals
                assert vitals is not None
                assert vitals.recovery_action == advice

        play(gpus, story)

    def test_slices_are_offered_in_the_place_of_their_gpu(self, two_cards, gpus):
        two_cards.state.add_slice(1, 0, "MIG-a", name="A100 MIG 1g.10gb", memory_bytes=10 << 30)
        two_cards.state.add_slice(1, 2, "MIG-c", name="A100 MIG 2g.20gb", memory_bytes=20 << 30)

        async def story(gpus: Gpus) -> None:
            found = await gpus.open()
            board = FOUR_GPUS[1].uuid
            assert [gpu.uuid for gpu in found.boards] == [board]
            assert [(gpu.uuid, gpu.model, gpu.vram_bytes, gpu.board) for gpu in found.gpus[1:]] == [
                ("MIG-a", "A100 MIG 1g.10gb", 10 << 30, board),
                ("MIG-c", "A100 MIG 2g.20gb", 20 << 30, board),
            ]
            two_cards.state.set_gpu(1, utilization_percent=50)
            reading = await read(gpus, "MIG-a")
            assert reading.sample is not None
            assert reading.sample.memory_used_bytes == 0
            # Of its board, not of itself.
            assert (reading.sample.utilization_percent, reading.sample.power_mw) == (None, None)
            assert (reading.processes, reading.vitals) == ((), None)
            # An error says which slice it struck; one that does not struck them all.
            two_cards.state.xid(1, 94, gpu_instance=3)
            two_cards.state.xid(1, 95)
            seen = await news(gpus, 2)
            assert {(xid.uuid, xid.number) for xid in seen} == {("MIG-c", 94), (board, 95)}

        play(gpus, story)

    def test_a_gpu_that_is_to_be_divided_but_is_not_is_not_offered(self, two_cards, gpus):
        two_cards.state.set_gpu(1, mig_mode=1)

        async def story(gpus: Gpus) -> None:
            assert [gpu.uuid for gpu in (await gpus.open()).gpus] == [FOUR_GPUS[0].uuid]

        play(gpus, story)

    @pytest.mark.parametrize(
        ("fault", "word"),
        [
            (Fault.DRIVER_NOT_LOADED, "not loaded"),
            (Fault.LIBRARY_AND_DRIVER_DIFFER, "reboot"),
            (Fault.UNKNOWN, "Unknown"),
        ],
    )
    def test_a_driver_in_trouble_is_named(self, two_cards, gpus, fault, word):
        two_cards.state.fail("nvmlInitWithFlags", fault)

        async def story(gpus: Gpus) -> None:
            with pytest.raises(GpuError, match=word):
                await gpus.open()

        play(gpus, story)

    def test_a_machine_without_a_driver_says_so(self, gpus, monkeypatch):
        monkeypatch.setenv("LD_LIBRARY_PATH", "")

        async def story(gpus: Gpus) -> None:
            with pytest.raises(GpuError, match="not installed"):
                await gpus.open()

        play(gpus, story)
