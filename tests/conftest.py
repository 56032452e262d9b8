"""What every test may use, and how tests are dealt out to parallel workers."""

from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["tests.rig.fixtures", "tests.support.ledger_fixtures"]


class _ByGroup(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid, self.config.rootpath)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Deal out by our groups. (xdist's own marker for it, `xdist_group`, has no effect under pytest 9.2.)"""
    return _ByGroup(config, log) if config.getvalue("dist") == "loadfile" else None


def group_of(nodeid: str, root: Path) -> str:
    """The tests of a file stay together; all files that need Docker go to one worker, beside one engine.

    Two engines would get along, but the tests that look at what an engine leaves on the host would not.
    """
    file = nodeid.partition("::")[0]
    return "docker" if _needs_docker(root / file) else file


@cache
def _needs_docker(file: Path) -> bool:
    return "mark.docker" in file.read_text()
