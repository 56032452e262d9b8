"""Manual and completions that packages bring, of the commands' code: `python -m tests.docs.manual FOLDER`."""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

import click
from click.shell_completion import get_completion_class

from agent.commands import MEANINGS as AGENT_MEANINGS
from agent.commands import parser as agent_parser
from cli.commands.complete import VARIABLE
from cli.exits import MEANINGS
from cli.main import usance
from coordinator.commands import MEANINGS as COORDINATOR_MEANINGS
from coordinator.commands import parser as coordinator_parser

Code = TypeVar("Code", bound=IntEnum)
_SubParsers = argparse._SubParsersAction
_FILES = {
    "usance": {
        "~/.config/usance/profiles.toml": "Markets and tokens that `usance login` keeps.",
    },
    "usance-agent": {
        "/etc/usance/agent.toml": "Settings; `usance-agent settings` prints them with what each is for.",
        "/var/lib/usance": "Identity, journals and running jobs.",
    },
    "usance-coordinator": {
        "/etc/usance/coordinator.toml": "Settings; `usance-coordinator settings` prints them. A "
        "coordinator.toml in the data folder counts instead.",
        "/var/lib/usance-coordinator": "Keys, certificates, SQLite's database, and the operator's token.",
    },
}
_ABOUT = {
    "usance": "buy, sell and operate on a market for GPU time",
    "usance-agent": "sell GPU time of this machine",
    "usance-coordinator": "run a market for GPU time",
}


def main() -> None:
    for kind, files in (("man", manual()), ("completions", completions())):
        folder = Path(sys.argv[1], kind)
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")


def manual() -> dict[str, str]:
    """Pages by their names."""
    pages = {"usance.1": _lines(_usance())}
    context = click.Context(usance, info_name="usance")
    for name in usance.list_commands(context):
        command = usance.get_command(context, name)
        assert command is not None, name
        pages[f"usance-{name}.1"] = _lines(_of_click(f"usance {name}", command))
    agent, coordinator = agent_parser(), coordinator_parser()
    pages["usance-agent.8"] = _lines(
        [*_of_argparse("usance-agent", agent), *_end("usance-agent", AGENT_MEANINGS)]
    )
    pages["usance-coordinator.8"] = _lines(
        [*_of_argparse("usance-coordinator", coordinator), *_end("usance-coordinator", COORDINATOR_MEANINGS)]
    )
    return pages


def completions() -> dict[str, str]:
    """Scripts by their names."""
    made = {}
    for shell in ("bash", "zsh", "fish"):
        kind = get_completion_class(shell)
        assert kind is not None, shell
        made[f"usance.{shell}"] = (
            kind.source_template.strip()
            % {"complete_func": "_usance_completion", "complete_var": VARIABLE, "prog_name": "usance"}
            + "\n"
        )
    for program, parser in (("usance-agent", agent_parser()), ("usance-coordinator", coordinator_parser())):
        words = _words(parser)
        made[f"{program}.bash"] = _bash(program, words)
        made[f"{program}.zsh"] = _zsh(program, words)
        made[f"{program}.fish"] = _fish(program, words)
    return made


def _usance() -> Iterator[str]:
    yield from _head("usance", 1, _ABOUT["usance"])
    yield from [".SH SYNOPSIS", f".B usance\n{_text('COMMAND [OPTIONS] [ARGUMENTS]')}", ".SH DESCRIPTION"]
    yield from _paragraphs(usance.help or "")
    yield ".SH COMMANDS"
    context = click.Context(usance)
    for name in usance.list_commands(context):
        command = usance.get_command(context, name)
        assert command is not None, name
        yield from _item(f"\\fBusance\\-{_text(name)}\\fR(1)", command.get_short_help_str(200))
    yield ".SH ENVIRONMENT"
    yield from _item(
        "\\fBUSANCE_SERVER\\fR, \\fBUSANCE_CA\\fR, \\fBUSANCE_TOKEN\\fR",
        "Which market, whom it is certified by, and who asks; they count more than the profile. Every option "
        "can come from the environment: USANCE_RUN_BUDGET is --budget of usance run.",
    )
    yield from _end("usance", MEANINGS)


def _of_click(name: str, command: click.Command) -> Iterator[str]:
    title = name.replace(" ", "-")
    yield from _head(title, 1, command.get_short_help_str(200))
    yield ".SH SYNOPSIS"
    context = click.Context(command, info_name=name)
    yield f".B {_text(name)}\n{_text(' '.join(command.collect_usage_pieces(context)))}"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(command.help or "")
    if isinstance(command, click.Group):
        for part in command.list_commands(context):
            below = command.get_command(context, part)
            assert below is not None, part
            pieces = " ".join(below.collect_usage_pieces(click.Context(below, info_name=part)))
            yield f".SS {_text(f'{name} {part} {pieces}')}"
            yield from _paragraphs(below.help or "")
            yield from _options(below)
    else:
        yield ".SH OPTIONS"
        yield from _options(command)
    yield from [".SH SEE ALSO", ".BR usance (1)"]


def _options(command: click.Command) -> Iterator[str]:
    for option in command.params:
        if isinstance(option, click.Option):
            names = ", ".join(f"\\fB{_text(name)}\\fR" for name in [*option.opts, *option.secondary_opts])
            value = "" if option.is_flag or option.count else f" \\fI{_text(_value_of(option))}\\fR"
            yield from _item(f"{names}{value}", option.help or "")


def _value_of(option: click.Option) -> str:
    return option.make_metavar(click.Context(click.Command("")))


def _of_argparse(program: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from _head(program, 8, _ABOUT[program])
    yield from [".SH SYNOPSIS", f".B {_text(program)}\n{_text('COMMAND [OPTIONS]')}", ".SH DESCRIPTION"]
    yield from _paragraphs(parser.description or "")
    yield ".SH COMMANDS"
    for action in subparsers(parser)._choices_actions:
        below = subparsers(parser).choices[action.dest]
        yield f".SS {_text(f'{program} {action.dest}')}"
        yield from _paragraphs(f"{(action.help or '')[:1].upper()}{(action.help or '')[1:]}.")
        for asked in below._actions:
            if "-h" not in asked.option_strings:
                names = ", ".join(f"\\fB{_text(name)}\\fR" for name in asked.option_strings or [asked.dest])
                value = f" \\fI{_text(str(asked.metavar or asked.dest))}\\fR" if _takes(asked) else ""
                choices = f" One of: {', '.join(map(str, asked.choices))}." if asked.choices else ""
                yield from _item(f"{names}{value}", f"{asked.help or ''}{choices}".strip())


def _takes(action: argparse.Action) -> bool:
    return bool(action.option_strings) and action.nargs != 0


def subparsers(parser: argparse.ArgumentParser) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    (found,) = [action for action in parser._actions if isinstance(action, _SubParsers)]
    return found


def _end(program: str, meanings: Mapping[Code, str]) -> Iterator[str]:
    yield ".SH FILES"
    for path, about in _FILES[program].items():
        yield from _item(f"\\fI{_text(path)}\\fR", about)
    yield ".SH EXIT STATUS"
    for code, meaning in meanings.items():
        yield from _item(str(code.value), meaning)
    others = [name for name in _ABOUT if name != program]
    yield ".SH SEE ALSO"
    yield ",\n".join(f".BR {_text(name)} ({'1' if name == 'usance' else '8'})" for name in others)


def _head(name: str, section: int, about: str) -> Iterator[str]:
    manual = "User Commands" if section == 1 else "System Administration"
    yield f'.TH {_text(name.upper())} {section} "" Usance "{manual}"'
    yield from [".SH NAME", f"{_text(name)} \\- {_text(about.rstrip('.'))}"]


def _item(title: str, text: str) -> Iterator[str]:
    yield from [".TP", title, _text(text) or "\\&"]


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.replace("\b", "").strip())):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """As groff takes it: what would be a request, an escape or a typographic hyphen is none."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _lines(lines: "Iterator[str] | list[str]") -> str:
    return '.\\" Made from the code of the command.\n' + "\n".join(lines) + "\n"


def _words(parser: argparse.ArgumentParser) -> dict[str, tuple[str, list[str]]]:
    """What each command is for, and its options."""
    found = subparsers(parser)
    return {
        action.dest: (
            action.help or "",
            [
                name
                for asked in found.choices[action.dest]._actions
                for name in asked.option_strings
                if name.startswith("--")
            ],
        )
        for action in found._choices_actions
    }


def _bash(program: str, words: Mapping[str, tuple[str, list[str]]]) -> str:
    name = f"_{program.replace('-', '_')}"
    cases = "\n".join(
        f"        {command}) words='{' '.join(opts)}' ;;" for command, (_, opts) in words.items()
    )
    return f"""\
{name}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} words=
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
    [ "$COMP_CWORD" -gt 1 ] || words='{" ".join([*words, "--help", "--version"])}'
    if [[ $current == -* || $COMP_CWORD -eq 1 ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}}
complete -o filenames -F {name} {program}
"""


def _zsh(program: str, words: Mapping[str, tuple[str, list[str]]]) -> str:
    commands = "\n".join(f"    {_quoted(f'{name}:{about}')}" for name, (about, _) in words.items())
    cases = "\n".join(f"        {name}) compadd -- {' '.join(opts)} ;;" for name, (_, opts) in words.items())
    return f"""\
#compdef {program}
local -a commands=(
{commands}
)
if (( CURRENT == 2 )); then
    _describe command commands
elif [[ $words[CURRENT] == -* ]]; then
    case $words[2] in
{cases}
    esac
else
    _files
fi
"""


def _fish(program: str, words: Mapping[str, tuple[str, list[str]]]) -> str:
    lines = []
    for name, (about, options) in words.items():
        first = f"complete -c {program} -n __fish_use_subcommand -f"
        lines.append(f"{first} -a {name} -d {_quoted(about)}")
        lines += [
            f"complete -c {program} -n '__fish_seen_subcommand_from {name}' -l {option[2:]}"
            for option in options
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


if __name__ == "__main__":
    main()
