"""A file of the archive that its disk has not kept as it was."""

import gzip
import json
from pathlib import Path

import pytest

from coordinator.keeping.archive import parts_in
from coordinator.keeping.manifest import DamagedError


def test_a_damaged_file_is_called_damaged_wherever_it_is(tmp_path: Path) -> None:
    """Most damage was a traceback instead, and ended the check of all files that came after."""
    lines = [{"head": {"job": "job_1", "part": "records"}}, {"kind": "event", "number": 1, "text": "began"}]
    whole = gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode(), mtime=0)
    path = tmp_path / "usance-2026-01-0001.jsonl.gz"
    path.write_bytes(whole)
    (good,) = parts_in(path)
    noticed = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert list(parts_in(path)) == [good]  # what gzip itself does not look at
        except DamagedError:
            noticed += 1
    assert noticed > len(whole) - 10
    path.write_bytes(gzip.compress(b"[]\n"))
    with pytest.raises(DamagedError):
        list(parts_in(path))
