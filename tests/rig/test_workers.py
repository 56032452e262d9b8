"""Tests are dealt out to parallel workers by file, and all that need Docker to one."""

from pathlib import Path

import pytest

from tests.conftest import group_of

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("tests/rig/test_postgres.py", "tests/rig/test_postgres.py"),
        ("tests/rig/test_hook.py", "tests/rig/test_hook.py"),
        ("tests/rig/test_dockerd.py", "docker"),
        ("tests/rig/test_gpu_assignment.py", "docker"),
    ],
)
def test_what_stays_together(file, group):
    assert group_of(f"{file}::test_something[parameter]", REPOSITORY) == group
