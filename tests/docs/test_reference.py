"""What is written about commands, exit codes, RPCs and refusals is what the code has."""

import re

import click
import pytest

from agent.commands import Exit as AgentExit
from cli.errors import Broken, NotConfirmed, Unreachable, WrongUse
from cli.exits import Exit
from cli.main import usance
from cli.model import RefusalCode
from coordinator.commands import Exit as CoordinatorExit
from tests.docs.reference import DOCS, ROOT, descriptors, pages, walk

COMMANDS = dict(walk(usance, "usance"))


@pytest.mark.parametrize(
    "name", ["commands.md", "exit-codes.md", "protocol.md", "job-states.md", "seller.md", "metrics.md"]
)
def test_the_page_is_current(name):
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[DOCS / name], "run `make docs`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help_and_is_in_the_docs(name):
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    command = COMMANDS[name]
    assert f"\n## {name}\n" in text
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name
            assert all(
                f"`{word}" in text or f" {word}`" in text or f", {word}" in text for word in option.opts
            )


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_every_command_that_a_page_shows_exists(page):
    """`usance …` in a shell line or in back-quotes."""
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"(?:\$\s+|&& |`)usance ((?:admin |token |profile |sessions )?[a-z-]+)", text)
    assert {f"usance {name}" for name in shown} <= set(COMMANDS)


def test_every_exit_code_is_in_the_docs():
    text = (DOCS / "exit-codes.md").read_text(encoding="utf-8")
    first, errors, agents, coordinators = text.split("\n## ")
    for page, codes in ((first, Exit), (agents, AgentExit), (coordinators, CoordinatorExit)):
        rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| ")][2:]
        assert {(int(code), name.strip()) for code, name in rows} == {(c.value, c.name) for c in codes}
    for code in (*RefusalCode, *(kind.code for kind in (WrongUse, NotConfirmed, Unreachable, Broken))):
        assert f"| `{code}` |" in errors


def test_every_rpc_and_every_refusal_is_in_the_docs():
    text = (DOCS / "protocol.md").read_text(encoding="utf-8")
    for file in descriptors():
        for service in file.service:
            assert f"### {service.name}\n" in text
            for method in service.method:
                assert f"| `{method.name}`" in text
    for code in RefusalCode:
        assert code is RefusalCode.UNSPECIFIED or f"| `{code}` |" in text
