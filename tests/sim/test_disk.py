"""The simulated disk keeps what a real one keeps."""

import os
from unittest.mock import patch

import agent.files
from agent.files import replace_durably
from tests.sim.disk import Disk, DiskOs
from tests.sim.faults import Dice, Story
from tests.sim.loop import Process, VirtualLoop


def test_a_file_that_replaces_another_is_kept_whole(tmp_path):
    """The old file had a tail that was never synced; the disk took the new one's for it (seed 20019)."""
    loop = VirtualLoop()
    disk = Disk("host0", tmp_path / "host0", Dice(1, "disk"), Story(loop))
    disks = DiskOs()
    disks.disks.append(disk)
    path = disk.folder / "attempts" / "attempt.json"
    path.parent.mkdir()

    def write() -> None:
        replace_durably(path, b"short")
        file = disks.open(path, os.O_WRONLY | os.O_APPEND)
        disks.write(file, b" and a tail")
        disks.close(file)
        replace_durably(path, b"a longer text, all of it synced")

    with patch.object(agent.files, "os", disks):
        Process("agent", loop).run(write)
        disk.lose_power()
    assert path.read_bytes() == b"a longer text, all of it synced"
    loop.forget()
