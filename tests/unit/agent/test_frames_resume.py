"""A restarted agent reads on from whatever offset it had reached, however far into a file that lies."""

import os
from pathlib import Path

import pytest

from agent.executor.frames import OutputReader
from agent.executor.supervisor import files as supervisor

FILES, FRAMES, FRAME_BYTES = 3, 12, 65_536


@pytest.fixture
def output(tmp_path: Path) -> tuple[Path, bytes]:
    """Three files of frames, as a supervisor leaves them, and the bytes they hold."""
    whole = b""
    for number in range(FILES):
        with (tmp_path / f"{len(whole):020d}").open("wb") as file:
            for _ in range(FRAMES):
                data = os.urandom(FRAME_BYTES)
                file.write(supervisor.FRAME.pack(supervisor.STREAM_STDOUT, len(data)) + data)
                whole += data
            if number == FILES - 1:
                file.write(supervisor.FRAME.pack(supervisor.STREAM_END, 0))
    return tmp_path, whole


# A single read takes in some four frames: an agent that was killed may have been further than that in a
# file. (It once read the head of the file again and again, and the rest of the output never came.)
@pytest.mark.parametrize("frames", range(FILES * FRAMES + 1))
@pytest.mark.parametrize("beyond", [0, 7])
def test_reading_on_gives_exactly_the_rest(output, frames, beyond):
    folder, whole = output
    offset = min(frames * FRAME_BYTES + beyond, len(whole))
    reader = OutputReader(folder, offset)
    found = b""
    while chunks := reader.read():
        assert chunks[0].offset == offset + len(found)
        found += b"".join(chunk.data for chunk in chunks)
    assert reader.ended
    assert found == whole[offset:]
    reader.close()
