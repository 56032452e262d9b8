"""A limit on a job's output is told in the output itself, once, and nothing else is changed by it."""

from pathlib import Path

import pytest

from agent.domain.attempt import OutputStream
from agent.executor.frames import OutputReader
from agent.executor.supervisor.files import STREAM_END, STREAM_STDERR, STREAM_STDOUT, Output

LIMIT = 10
SAID = b"\nusance: this host keeps 10 bytes of a job's output; nothing that comes now is kept\n"


def written(folder: Path) -> dict[OutputStream, bytes]:
    found = {OutputStream.STDOUT: b"", OutputStream.STDERR: b""}
    reader = OutputReader(folder, 0)
    while chunks := reader.read():
        for chunk in chunks:
            found[chunk.stream] += chunk.data
    assert reader.ended
    reader.close()
    return found


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("pieces", "kept", "is_told"),
    [
        ([b"0123456789"], b"0123456789", False),
        ([b"01234", b"56789"], b"0123456789", False),
        ([b"0123456789ab"], b"0123456789", True),
        ([b"0123456789", b"a", b"b"], b"0123456789", True),
        ([b"01234", b"56789ab", b"c" * 70_000], b"0123456789", True),
    ],
)
def test_what_is_over_the_limit_is_dropped_and_said(pieces, kept, is_told, again, tmp_path):
    """Also by a supervisor that goes on after another one, which knows only what lies there."""
    output = Output(str(tmp_path), LIMIT)
    for piece in pieces:
        output.write(STREAM_STDOUT, piece)
        if again:
            output = Output(str(tmp_path), LIMIT)
    if is_told:
        output.write(STREAM_STDERR, b"more")
    output.write(STREAM_END, b"")
    assert written(tmp_path) == {
        OutputStream.STDOUT: kept,
        OutputStream.STDERR: SAID if is_told else b"",
    }


def test_without_a_limit_all_is_kept(tmp_path):
    output = Output(str(tmp_path))
    output.write(STREAM_STDOUT, b"x" * 50_000)
    output.write(STREAM_END, b"")
    assert len(written(tmp_path)[OutputStream.STDOUT]) == 50_000
