"""What container files name is there: settings, commands, files, and the users they run as."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from agent.commands import parser as agent_parser
from coordinator.commands import parser as coordinator_parser
from coordinator.settings import ENVIRONMENT_PREFIX, Settings, load

PACKAGING = Path(__file__).parents[2] / "packaging"
FILES = [*sorted(PACKAGING.glob("container/*")), *sorted(PACKAGING.glob("kubernetes/*"))]
PARSERS = {"usance-agent": agent_parser, "usance-coordinator": coordinator_parser}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_that_is_named_is_one(path):
    names = set(re.findall(rf"\b{ENVIRONMENT_PREFIX}([A-Z_]+)", path.read_text()))
    assert names <= {item.name.upper() for item in fields(Settings)}


def test_what_the_image_says_of_settings_is_taken(tmp_path):
    text = (PACKAGING / "container/coordinator.Dockerfile").read_text()
    said = dict(re.findall(rf"({ENVIRONMENT_PREFIX}[A-Z_]+)=(\S+)", text))
    found = load(tmp_path, {}, said)
    assert (found.market, found.hosts) == ("0.0.0.0:7410", "0.0.0.0:7411")
    assert f"EXPOSE {found.market.rpartition(':')[2]} {found.hosts.rpartition(':')[2]}\n" in text


@pytest.mark.parametrize("program", ["agent", "coordinator"])
def test_an_image_ends_as_nobody_special_and_asks_what_there_is(program):
    text = (PACKAGING / f"container/{program}.Dockerfile").read_text()
    first, last = text.split("\nFROM ")[1:]
    assert first.startswith("${BASE} AS unpacked\n")
    users = re.findall(r"^USER (\d+):\d+$", last, re.MULTILINE)
    assert users
    assert users[-1] != "0"
    assert f"--uid {users[-1]} " in last
    for asked in re.findall(r"(?:CMD|ENTRYPOINT) (\[.*\])$", last, re.MULTILINE):
        words = json.loads(asked)
        if words[0] == f"usance-{program}" and len(words) > 1:
            PARSERS[words[0]]().parse_args(words[1:])


def test_compose_mounts_what_is_there():
    mounted = re.findall(
        r"^ +- (\.\./[^:]+):/", (PACKAGING / "container/compose.yaml").read_text(), re.MULTILINE
    )
    assert len(mounted) == 4
    assert all((PACKAGING / "container" / path).exists() for path in mounted)


def test_the_cluster_runs_commands_that_there_are():
    text = (PACKAGING / "kubernetes/coordinator.yaml").read_text()
    commands = [words.split(", ")[1:] for words in re.findall(r"command: \[(usance-coordinator, .*)\]", text)]
    commands += [words.split(", ") for words in re.findall(r"args: \[(.*)\]", text)]
    assert len(commands) == 3
    for words in commands:
        assert str(coordinator_parser().parse_args(words).data_dir) == "/data/market"
