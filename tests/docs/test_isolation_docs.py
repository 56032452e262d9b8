"""docs/isolation.md names the tests that hold its promises, and the settings that it speaks of."""

import re
import subprocess
from pathlib import Path

from agent.settings import EXAMPLE
from tests.support.need import need

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/isolation.md").read_text(encoding="utf-8")


def test_every_test_that_it_names_is_there():
    found = subprocess.run(
        ["git", "grep", "-hoE", r"def test_\w+", "--", "tests"],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
    )
    need(condition=found.returncode == 0, what="git and a checkout", how="run the tests from a clone")
    there = {line.removeprefix("def ") for line in found.stdout.splitlines()}
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) >= 8
    assert named - there == set()


def test_every_setting_that_it_names_is_one():
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?: = \w+)?`", PAGE))
    settings = {name for name in named if not name.startswith("test_") and name != "allow_list"}
    assert settings >= {"image_gb_max", "disk_reserve_gb", "local_images", "network_pool", "dns_servers"}
    assert {name for name in settings if not re.search(rf"^{name} = ", EXAMPLE, re.MULTILINE)} == set()
