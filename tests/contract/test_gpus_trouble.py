"""A driver in trouble: calls that hang, a process that dies, errors that come unasked."""

import asyncio
import os

import pytest

from agent.domain.gpu import GpuFault, XidSeen
from agent.gpu.driver import NvmlGpus, Patience
from agent.gpu.ports import GpuError, Gpus
from tests.support.gpus import ALL, CLOCK, NOTHING, news, play, read

pytestmark = pytest.mark.nvml


def test_errors_come_from_the_library_and_from_the_kernel_and_count_once(two_cards, tmp_path):
    log = tmp_path / "kmsg"
    os.mkfifo(log)
    # Both ways: a pipe that nobody writes to would make the reader wait before it can be opened.
    held = os.open(log, os.O_RDWR)

    async def story(gpus: Gpus) -> None:
        first, second = (gpu.uuid for gpu in (await gpus.open()).gpus)
        with log.open("w") as kernel:
            two_cards.state.xid(0, 31)
            two_cards.state.xid(0, 31)
            seen = await news(gpus, 1)
            while sum(xid.count for xid in seen) < 2:
                seen += await news(gpus, 1)
            assert {(xid.uuid, xid.number) for xid in seen} == {(first, 31)}
            kernel.write("6,1,1,-;usb 1-1: new device\n")
            kernel.write("4,2,2,-;NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus.\n")
            kernel.write("4,3,3,-;NVRM: Xid (PCI:0000:77:00): 13, of a GPU that is not ours\n")
            kernel.flush()
            assert await news(gpus, 1) == [XidSeen(uuid=second, number=79)]

    play(NvmlGpus(CLOCK, kernel_log=log), story)
    os.close(held)


def test_a_call_that_hangs_ends_its_process_and_names_the_gpu(two_cards):
    async def story(gpus: Gpus) -> None:
        assert isinstance(gpus, NvmlGpus)
        stuck, well = (gpu.uuid for gpu in (await gpus.open()).gpus)
        two_cards.state.delay_gpu(0, 3_600_000)
        look = await gpus.look({well: ALL, stuck: ALL})
        assert {reading.uuid: reading.fault for reading in look.readings} == {
            well: None,
            stuck: GpuFault.SILENT,
        }
        # The others are asked again as soon as the process is back; the one that hung is left alone.
        async with asyncio.timeout(20):
            while not any(r.uuid == well for r in (await gpus.look({stuck: ALL, well: ALL})).readings):
                await CLOCK.sleep_ms(50)
        look = await gpus.look({stuck: ALL, well: ALL})
        assert [(r.uuid, r.fault) for r in look.readings] == [(well, None), (stuck, GpuFault.SILENT)]
        assert gpus.restarts == 1

    play(NvmlGpus(CLOCK, kernel_log=NOTHING, patience=Patience(part_ms=300)), story)


def test_an_opening_that_hangs_is_no_wait_for_ever(two_cards):
    two_cards.state.delay("nvmlInitWithFlags", 3_600_000)

    async def story(gpus: Gpus) -> None:
        with pytest.raises(GpuError, match="hangs"):
            await gpus.open()

    play(NvmlGpus(CLOCK, kernel_log=NOTHING, patience=Patience(open_ms=300)), story)


def test_a_process_that_was_killed_comes_back(two_cards):
    async def story(gpus: Gpus) -> None:
        assert isinstance(gpus, NvmlGpus)
        uuid = (await gpus.open()).gpus[0].uuid
        pid = gpus.pid
        assert pid is not None
        os.kill(pid, 9)
        look = await gpus.look({uuid: ALL})
        async with asyncio.timeout(20):
            while not look.readings or look.readings[0].fault is not None:
                await CLOCK.sleep_ms(50)
                look = await gpus.look({uuid: ALL})
        assert gpus.pid != pid

    play(NvmlGpus(CLOCK, kernel_log=NOTHING), story)


def test_whoever_is_cancelled_leaves_no_half_answer_behind(two_cards):
    async def story(gpus: Gpus) -> None:
        first, second = (gpu.uuid for gpu in (await gpus.open()).gpus)
        two_cards.state.delay("nvmlDeviceGetPowerUsage", 200)
        cancelled = asyncio.ensure_future(gpus.look({first: ALL}))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        for uuid in (second, first, second):
            assert (await read(gpus, uuid)).uuid == uuid

    play(NvmlGpus(CLOCK, kernel_log=NOTHING), story)


def test_it_can_be_left_while_a_call_hangs(two_cards):
    async def story(gpus: Gpus) -> None:
        uuid = (await gpus.open()).gpus[0].uuid
        two_cards.state.delay_gpu(0, 3_600_000)
        hanging = asyncio.ensure_future(gpus.look({uuid: ALL}))
        await asyncio.sleep(0.05)
        await gpus.close()
        await asyncio.wait_for(hanging, 10)

    play(NvmlGpus(CLOCK, kernel_log=NOTHING), story)


def test_it_ends_with_the_agent(two_cards):
    async def story(gpus: Gpus) -> None:
        assert isinstance(gpus, NvmlGpus)
        await gpus.open()
        pid = gpus.pid
        await gpus.close()
        assert gpus.pid is None
        with pytest.raises(ProcessLookupError):
            os.kill(pid or 0, 0)

    play(NvmlGpus(CLOCK, kernel_log=NOTHING), story)
