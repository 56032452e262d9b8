"""Writes the parts of docs/ that are made from the code: `python -m tests.docs.reference` (or `make docs`).

The tests beside this file fail when what is committed is not what this would write.
"""

import argparse
import re
import tempfile
from collections.abc import Iterator, Mapping
from enum import IntEnum
from importlib import resources
from pathlib import Path
from typing import TypeVar

import click
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from agent.commands import MEANINGS as AGENT_MEANINGS
from agent.commands import parser as agent_parser
from agent.settings import EXAMPLE
from cli.exits import ERRORS, MEANINGS, exit_of_code
from cli.main import usance
from cli.topics import TOPICS, topic_lines
from coordinator.commands import MEANINGS as COORDINATOR_MEANINGS
from tests.docs import dashboards
from tests.docs.metrics import tables
from tests.docs.states import states_page

ROOT = Path(__file__).parents[2]
Code = TypeVar("Code", bound=IntEnum)
DOCS = ROOT / "docs"
_PROTOS = [f"usance/v1/{name}.proto" for name in ("types", "market", "books", "login", "host")]
_BEGIN, _END = "<!-- made by `make docs`: begin -->", "<!-- made by `make docs`: end -->"

_SubParsers = argparse._SubParsersAction
_OF_EVERY_COMMAND = {"-h", "--config", "--state-dir", "--log-level", "--log-json"}

# Numbers in a FileDescriptorProto by which source comments are addressed.
_SERVICE, _METHOD, _ENUM, _VALUE = 6, 2, 5, 2


def main() -> None:
    for path, text in (pages() | dashboards.files()).items():
        path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    return {
        DOCS / "commands.md": commands_page(),
        DOCS / "exit-codes.md": exit_codes_page(),
        DOCS / "protocol.md": protocol_page(),
        DOCS / "seller.md": made_part(DOCS / "seller.md", _seller_reference()),
        DOCS / "job-states.md": states_page(),
        DOCS / "metrics.md": made_part(DOCS / "metrics.md", tables()),
    }


def commands_page() -> str:
    lines = [
        "# Commands of `usance`",
        "",
        "Made from the code by `make docs`. Money is in credits, like `5` or `0.60`; durations like `2h`,",
        "`1h30m`, `45s`; sizes like `24GB` (decimal) or `24GiB`. JOB is an id, a unique beginning of one, a",
        "name that one job has (or one live job), or `@last`. Exit codes: [exit-codes.md](exit-codes.md).",
        "",
        "Every command takes `--json`: one object on stdout with `schema_version`, errors as JSON on stderr",
        "with a stable code (`run`, `wait` and `logs` leave stdout to the job: JSON lines on stderr).",
        "Times are local and name their zone, or UTC with `--utc`.",
        "Each also takes `--server`, `--ca` and `--token-file` to say where the market is and who asks, else",
        "`USANCE_SERVER`, `USANCE_CA` and `USANCE_TOKEN` count, else the profile that `usance login` wrote",
        "(`~/.config/usance/profiles.toml`; `--profile NAME` for another than the current one). `--debug`",
        "shows where in the program an error came up. `usance help TOPIC` says what [Topics](#topics) has.",
    ]
    for name, command in walk(usance, "usance"):
        lines += ["", f"## {name}", "", _plain(command.help or ""), "", f"    {_usage(name, command)}"]
        rows = [
            f"| `{', '.join([*option.opts, *option.secondary_opts])}` | {_plain(option.help or '')} |"
            for option in command.params
            if isinstance(option, click.Option) and not set(option.opts) & SHARED_OPTIONS
        ]
        if rows:
            lines += ["", "| option | meaning |", "| --- | --- |", *rows]
    lines += ["", "## Topics"]
    for topic in TOPICS:
        if topic not in {"exit-codes", "errors"}:  # these have a page of their own
            lines += ["", f"### {topic}", "", *topic_lines(topic)]
    return "\n".join(lines) + "\n"


SHARED_OPTIONS = {"--json", "--utc", "--debug", "--profile", "--server", "--ca", "--token-file"}


def walk(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its full name, in the order of the code."""
    context = click.Context(group)
    for part in group.list_commands(context):
        command = group.get_command(context, part)
        assert command is not None, part
        if isinstance(command, click.Group):
            yield from walk(command, f"{name} {part}")
        else:
            yield f"{name} {part}", command


def _usage(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    return " ".join([name, *command.collect_usage_pieces(context)])


def exit_codes_page() -> str:
    lines = [
        "# Exit codes of `usance`",
        "",
        "Made from the code by `make docs`. `usance run` and `usance wait` exit with the job's own code.",
        "These are for what is not the job's; they keep clear of the codes that programs commonly use.",
        "",
        *_codes(MEANINGS),
        "",
        "## Codes of errors",
        "",
        "With `--json` an error is one object on stderr: `schema_version` and `error`, with `code`,",
        "`message` and `faults`, each of which has a `field` and a `description`; and `request_id` where the",
        "coordinator was asked, by which its operator finds the command in the logs. A code keeps its",
        "meaning.",
        "",
        "| error | exit code | meaning |",
        "| --- | --- | --- |",
        *(f"| `{code}` | {exit_of_code(code).value} | {meaning} |" for code, meaning in ERRORS.items()),
        "",
        "## Of `usance-agent`",
        "",
        *_codes(AGENT_MEANINGS),
        "",
        "## Of `usance-coordinator`",
        "",
        *_codes(COORDINATOR_MEANINGS),
    ]
    return "\n".join(lines) + "\n"


def _codes(meanings: Mapping[Code, str]) -> Iterator[str]:
    yield "| code | name | meaning |"
    yield "| --- | --- | --- |"
    for code, meaning in meanings.items():
        yield f"| {code.value} | {code.name} | {meaning} |"


def protocol_page() -> str:
    """The page as it is, with its tables made anew."""
    return made_part(DOCS / "protocol.md", _protocol_tables())


def made_part(path: Path, lines: Iterator[str]) -> str:
    before, _, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n\n" + "\n".join(lines) + f"\n\n{_END}{after}"


def _seller_reference() -> Iterator[str]:
    yield from ["## Commands", ""]
    yield "Each takes `--config FILE`, `--state-dir DIR`, `--log-level LEVEL` and `--log-json`. Exit codes:"
    yield from ["[exit-codes.md](exit-codes.md).", "", "| command | what it does |", "| --- | --- |"]
    (commands,) = [action for action in agent_parser()._actions if isinstance(action, _SubParsers)]
    for choice in commands._choices_actions:
        asked = [
            f"`{' '.join(filter(None, [*action.option_strings[:1], _value_of(action)]))}`"
            + (f" {_plain(action.help)}" if action.help else "")
            for action in commands.choices[choice.dest]._actions
            if not {*action.option_strings} & _OF_EVERY_COMMAND
        ]
        yield f"| `usance-agent {choice.dest}` | {choice.help}{': ' if asked else ''}{'; '.join(asked)} |"
    yield from ["", "## Settings", "", "`usance-agent settings` prints this file.", "", "```toml"]
    yield from [EXAMPLE.rstrip(), "```"]


def _value_of(action: argparse.Action) -> str:
    if not action.option_strings:
        return action.dest.upper()
    return str(action.metavar or "") if action.nargs != 0 else ""


def _protocol_tables() -> Iterator[str]:
    files = descriptors()
    for file in files:
        comments = _comments(file)
        for number, service in enumerate(file.service):
            yield from [f"### {service.name}", "", comments.get((_SERVICE, number), ""), ""]
            yield from ["| RPC | what it does |", "| --- | --- |"]
            for part, method in enumerate(service.method):
                streams = (
                    "both ways"
                    if method.client_streaming and method.server_streaming
                    else "a stream of answers"
                    if method.server_streaming
                    else ""
                )
                text = comments.get((_SERVICE, number, _METHOD, part), "")
                yield f"| `{method.name}`{f' ({streams})' if streams else ''} | {text} |"
            yield ""
    yield from ["### Refusal codes", "", "| code | gRPC status and meaning |", "| --- | --- |"]
    comments = _comments(files[0])
    for number, enum in enumerate(files[0].enum_type):
        if enum.name == "RefusalCode":
            for part, value in enumerate(enum.value):
                if value.number:
                    text = comments[(_ENUM, number, _VALUE, part)]
                    yield f"| `{value.name.removeprefix('REFUSAL_CODE_')}` | {text} |"


def descriptors() -> list[FileDescriptorProto]:
    """The contract's files with their comments."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        well_known = resources.files("grpc_tools") / "_proto"
        arguments = [f"-I{ROOT / 'proto'}", f"-I{well_known}", "--include_source_info", f"-o{out}", *_PROTOS]
        if protoc.main(["protoc", *arguments]) != 0:
            raise RuntimeError("the contract does not compile")
        every = FileDescriptorSet.FromString(out.read_bytes())
    return list(every.file)


def _comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {
        tuple(location.path): _plain(location.leading_comments)
        for location in file.source_code_info.location
        if location.leading_comments
    }


def _plain(text: str) -> str:
    """One line, fit for a table."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "or")


if __name__ == "__main__":
    main()
