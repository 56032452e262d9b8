"""What a test cannot run without."""

import os

import pytest


def need_history(condition: bool) -> None:
    """Skip the test where the checkout holds no history: that is no fault of the machine's preparation."""
    if not condition:
        pytest.skip("needs the history of this repository: clone it whole, or git fetch --unshallow")


def need(condition: bool, what: str, how: str) -> None:
    """Skip the test when `condition` does not hold; where everything must be there, fail it.

    `.ci/run` prepares the whole machine and sets USANCE_REQUIRE_ALL=1: what is missing there is a fault of
    the preparation, and a green run must not hide it. `how` tells a person what to install or to do.
    """
    if condition:
        return
    sentence = f"needs {what}: {how}"
    if os.environ.get("USANCE_REQUIRE_ALL") == "1":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)
