"""The house rules that a program can check and no other tool does. CONTRIBUTING.md gives their reasons."""

import ast
import os
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.support.need import need

REPOSITORY = Path(__file__).parents[2]
LINES_MAX = 400
BYTES_MAX = 200_000

# Written in two parts, so that this file keeps its own rules.
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
REGISTRIES = re.compile(
    r"(?:py"
    r"pi\.org|python"
    r"hosted|npm"
    r"js\.|extra-index"
    r"-url|docker"
    r"\.io/|ghcr"
    r"\.io|quay"
    r"\.io)"
)
LEAVING_OUT = re.compile(r"pytest\.(?:mark\.)?(?:skip|skipif|xfail|importorskip)\b")
SLEEPING = re.compile(r"\btime\.sleep\(")

# Where the one exception to a rule lives.
LEAVES_OUT = {"tests/support/need.py", "tests/unit/test_need.py"}
SLEEPS = {"tests/rig/parts.py", "tests/rig/nvidia_hook.py"}


@cache
def tracked() -> tuple[str, ...]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=False, capture_output=True)
    need(
        condition=listed.returncode == 0,
        what="git and a checkout",
        how="apt-get install git, and run the tests from a clone",
    )
    names = [name for name in os.fsdecode(listed.stdout).split("\0") if name]
    return tuple(name for name in names if (REPOSITORY / name).is_file())


def texts(*suffixes: str) -> dict[str, str]:
    """Hand-written files by name: not what the contract generates, and not what is no text."""
    found = {}
    for name in tracked():
        if "_pb2" in name or not name.endswith(suffixes or ("",)):
            continue
        raw = (REPOSITORY / name).read_bytes()
        if b"\0" not in raw:
            found[name] = raw.decode()
    return found


def lines_with(pattern: re.Pattern[str], files: dict[str, str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in files.items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_file_is_longer_than_one_reads():
    long = {name: text.count("\n") for name, text in texts(".py", ".c", ".h", ".sh").items()}
    assert {name: count for name, count in long.items() if count > LINES_MAX} == {}


def test_nothing_is_left_for_later():
    assert lines_with(UNFINISHED, texts()) == []


def test_no_file_names_a_package_registry():
    """Where packages come from is the affair of the machine that installs them."""
    assert lines_with(REGISTRIES, texts()) == []


def test_requirements_are_pins_with_hashes():
    for name, text in texts(".txt").items():
        for entry in re.split(r"\n(?=\S)", text.strip()):
            assert re.match(r"^[a-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", entry, re.DOTALL), (
                f"{name}: {entry}"
            )


def test_packages_are_empty_at_their_top():
    """A re-export hides from the import rules who imports whom."""
    assert [name for name, text in texts("__init__.py").items() if text] == []


def test_tests_are_left_out_in_one_place_only():
    files = {name: text for name, text in texts(".py").items() if name not in LEAVES_OUT}
    assert lines_with(LEAVING_OUT, files) == []


def test_no_test_sleeps_to_wait_for_something():
    tests = {
        name: text for name, text in texts(".py").items() if name.startswith("tests/") and name not in SLEEPS
    }
    assert lines_with(SLEEPING, tests) == []


def test_every_module_says_what_it_is():
    silent = [
        name for name, text in texts(".py").items() if text and ast.get_docstring(ast.parse(text)) is None
    ]
    assert silent == []


def test_files_end_in_one_newline_and_lines_in_none_but_it():
    for name, text in texts().items():
        assert not text or (text.endswith("\n") and not text.endswith("\n\n")), name
        assert "\r" not in text, name
    assert lines_with(re.compile(r"[ \t]$"), texts()) == []


def test_no_file_is_big():
    sizes = {name: (REPOSITORY / name).stat().st_size for name in tracked()}
    assert {
        name: size for name, size in sizes.items() if size > BYTES_MAX and "requirements/" not in name
    } == {}


@pytest.mark.parametrize("name", [".ci/run", "proto/check.sh", "requirements/lock.sh"])
def test_scripts_can_be_run(name):
    path = REPOSITORY / name
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!")
