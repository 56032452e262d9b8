"""The manual that packages bring is whole and well set, and the completions complete."""

import shutil
import subprocess

import pytest

from agent.commands import parser as agent_parser
from cli.main import usance
from coordinator.commands import parser as coordinator_parser
from tests.docs.manual import completions, manual, subparsers
from tests.docs.reference import walk
from tests.support.need import need

PAGES, SCRIPTS = manual(), completions()


def test_every_command_and_option_is_in_the_manual():
    for name, command in walk(usance, "usance"):
        top = name.split()[1]
        page = PAGES[f"usance-{top}.1"].replace("\\-", "-")
        assert name in page
        assert all(
            f"\\fB{word}\\fR" in page for option in command.params for word in option.opts if "-" in word[:1]
        )
    for program, parser in (("usance-agent", agent_parser()), ("usance-coordinator", coordinator_parser())):
        page = PAGES[f"{program}.8"].replace("\\-", "-")
        for choice in subparsers(parser).choices:
            assert f".SS {program} {choice}\n" in page


def test_the_pages_are_set_without_a_warning(tmp_path):
    need(shutil.which("groff") is not None, "groff", "apt-get install groff-base")
    for name, text in PAGES.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["groff", "-man", "-Kutf8", "-Tutf8", "-ww", "-z", *sorted(PAGES)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (("usance-agent", "re"), "resume reclaim reload"),
        (("usance-agent", "uninstall", "--e"), "--end-jobs"),
        (("usance-coordinator", "doc"), "doctor"),
        (("usance-coordinator", "doctor", "--j"), "--json"),
    ],
)
def test_bash_completes_the_daemons_commands(words, completed, tmp_path):
    program = words[0]
    (tmp_path / "script").write_text(SCRIPTS[f"{program}.bash"])
    typed = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}"
    script = f'. ./script; {typed}; _{program.replace("-", "_")}; echo "${{COMPREPLY[*]}}"'
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == f"{completed}\n"


def test_every_shell_has_its_scripts():
    programs = ("usance", "usance-agent", "usance-coordinator")
    assert set(SCRIPTS) == {f"{program}.{shell}" for program in programs for shell in ("bash", "zsh", "fish")}
    assert all(SCRIPTS[f"{program}.zsh"].startswith(f"#compdef {program}\n") for program in programs)
