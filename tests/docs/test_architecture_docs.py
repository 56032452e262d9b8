"""docs/architecture.md shows the layers that the import contracts hold."""

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", ["coordinator", "agent", "cli"])
def test_it_shows_the_layers_of_each_part(part):
    (layers,) = [
        contract["layers"]
        for contract in PROJECT["tool"]["importlinter"]["contracts"]
        if contract.get("containers") == [part]
    ]
    shown = re.search(rf"^- {part}: `([^`]*)`", PAGE, re.MULTILINE)
    assert shown is not None
    assert [set(re.findall(r"\w+", layer)) for layer in shown[1].split(">")] == [
        set(re.findall(r"\w+", layer)) for layer in layers
    ]
