"""`usance apply`: a job from a file instead of options."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.commands.confidential import SECRET
from cli.commands.run import carry_out, run_options
from cli.commands.wanted import ENV, job_options
from cli.errors import FieldFault, WrongUse
from cli.model import JobSpec
from cli.session import Session, market_command

if TYPE_CHECKING:
    from cli.jobfile import Entry, Problem

_FILE_BYTES_MAX = 1_000_000


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@run_options
@market_command
def apply(session: Session, file: Path, yes: bool, detach: bool, dry_run: bool, verbose: bool) -> None:
    """Run the job that a TOML FILE describes, or - for standard input, and stay with it like `usance run`.

    The keys are the options of `usance run` without their dashes; `command` is an array of words; env, label
    and host-label are tables. What is wrong is told with its line. Each apply is a new job.
    """
    spec = job_of_text(str(file), _read(file))
    carry_out(session, spec, yes=yes, detach=detach, dry_run=dry_run, verbose=verbose)


@click.command()
@job_options
@click.pass_obj
def _taken(found: list[JobSpec], spec: JobSpec) -> None:
    """The options of a job, for whoever has them from elsewhere than a command line."""
    found.append(spec)


def job_of_text(name: str, text: str) -> JobSpec:
    """Raises WrongUse with every fault of the file, each with its line."""
    from cli.jobfile import COMMAND, Problem, read_entries, unknown

    entries, problems = read_entries(text)
    options = {_key(each): each for each in _taken.params if isinstance(each, click.Option)}
    line, words = list[str](), list[str]()
    for entry in entries:
        if entry.key == COMMAND:
            words += entry.words
            problems += _command_problems(entry)
        elif entry.key in options:
            said, wrong = _said(entry, options[entry.key])
            line += said
            problems += wrong
        else:
            problems.append(unknown(entry, {*options, COMMAND}))
    given = {entry.key for entry in entries}
    if entries or not problems:
        problems += [
            Problem(line=0, sentence=f"{key} is missing, and no job is without it")
            for key in ("budget", COMMAND)
            if key not in given
        ]
    if problems:
        raise _wrong(name, problems)
    found: list[JobSpec] = []
    try:
        _taken.main(args=[*line, "--", *words], standalone_mode=False, obj=found)
    except WrongUse as error:
        raise WrongUse(f"{name}: {error}") from error
    return found[0]


def _key(option: click.Option) -> str:
    return max(option.opts, key=len).removeprefix("--")


def _command_problems(entry: "Entry") -> "list[Problem]":
    from cli.jobfile import Problem, Shape

    if entry.shape is Shape.LIST and entry.words:
        return []
    sentence = 'command is an array of words, like ["python", "train.py"]'
    return [Problem(line=entry.line, sentence=sentence)]


def _said(entry: "Entry", option: click.Option) -> "tuple[list[str], list[Problem]]":
    """What would be said on the command line, and what is wrong with it."""
    from cli.jobfile import Problem

    unfit = _unfit(entry, option)
    if unfit:
        return [], [Problem(line=entry.line, sentence=f"{entry.key} {unfit}")]
    if option.is_flag:
        return _flag(entry), []
    problems = []
    for word in entry.words:
        try:
            option.type.convert(word, option, None)
        except click.BadParameter as error:
            problems.append(Problem(line=entry.line, sentence=f"{entry.key}: {error.message}"))
    return [f"--{entry.key}={word}" for word in entry.words], problems


def _unfit(entry: "Entry", option: click.Option) -> str:
    """Why the value can't be the option's, whatever is in it."""
    from cli.jobfile import Shape

    match entry.shape:
        case Shape.YES | Shape.NO:
            return "" if option.is_flag else "takes a value, not true or false"
        case _ if option.is_flag:
            return "is true or false"
        case Shape.TABLE if option.type.name not in {ENV.name, SECRET.name}:
            return "is no table"
        case Shape.LIST if not option.multiple:
            return "takes one value, not a list"
        case _:
            return ""


def _flag(entry: "Entry") -> list[str]:
    from cli.jobfile import Shape

    return [f"--{entry.key}"] if entry.shape is Shape.YES else []


def _wrong(name: str, problems: "list[Problem]") -> WrongUse:
    faults = tuple(
        FieldFault(field=f"{name}:{problem.line}" if problem.line else name, description=problem.sentence)
        for problem in sorted(problems, key=lambda problem: problem.line)
    )
    first = faults[0]
    if len(faults) == 1:
        return WrongUse(f"{first.field}: {first.description}", faults)
    return WrongUse(f"{name} holds {len(faults)} mistakes; nothing was done", faults)


def _read(file: Path) -> str:
    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as source:
            raw = source.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise WrongUse(f"{file} can't be read: {error.strerror}") from error
    if len(raw) > _FILE_BYTES_MAX:
        raise WrongUse(f"{file} is longer than a job file may be, {_FILE_BYTES_MAX} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise WrongUse(f"{file} is not UTF-8, which a job file has to be: {error.reason}") from error
