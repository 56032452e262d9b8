"""What tests of the agent's parts share."""

import pytest


@pytest.fixture
def instant_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is told nothing: for tests that write a thousand times, and are about what was written."""
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(f"os.{name}", lambda _: None)
