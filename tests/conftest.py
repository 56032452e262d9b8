"""What every test may use."""

import gc
import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

# The same examples each time, and no deadline on a machine that may be busy.
settings.load_profile("ci")

pytest_plugins = [
    "tests.rig.fixtures",
    "tests.support.ledger_fixtures",
    "tests.support.store_fixtures",
    "tests.support.running_dispatcher",
]


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """A program that a test calls sets up logs and memory for its process, which goes on with other tests."""
    root, thresholds = logging.getLogger(), gc.get_threshold()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    if gc.get_threshold() != thresholds:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
