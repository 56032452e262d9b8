"""A job file: TOML whose keys are the options of `usance run`. Pure; what is wrong comes with its line.

image = "python:3.12"
command = ["python", "train.py"]
gpu = "rtx4090:2"
budget = 5
reach = ["example.org:443"]

[env]
EPOCHS = 10
"""

import difflib
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

COMMAND = "command"

_HEADER = re.compile(r"\s*\[\s*([A-Za-z0-9_-]+)\s*\]\s*(?:#.*)?")
_KEY = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*=(.*)""")
_PLACE = re.compile(r"(.*?) ?\(at (?:line ([0-9]+), column [0-9]+|end of document)\)", re.DOTALL)
_SIMILAR = 0.5


class Shape(Enum):
    """How a value was written."""

    ONE = auto()
    LIST = auto()
    TABLE = auto()
    YES = auto()
    NO = auto()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One key of the file. `words` are what would stand on the command line."""

    key: str
    line: int
    shape: Shape
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """`line` is 0 where it is the whole file's."""

    line: int
    sentence: str


def read_entries(text: str) -> tuple[list[Entry], list[Problem]]:
    """Every key with its value, and everything that can't be one."""
    try:
        # Numbers stay as they are written: no float may come near money.
        content = tomllib.loads(text, parse_float=str)
    except tomllib.TOMLDecodeError as error:
        return [], [_syntax(str(error), text)]
    lines = _lines_of_keys(text)
    entries, problems = list[Entry](), list[Problem]()
    for name, value in content.items():
        line = lines.get(("", name)) or lines.get((name, "")) or 0
        try:
            entries.append(_entry(name.replace("_", "-"), value, line))
        except ValueError as error:
            problems.append(Problem(line=line, sentence=f"{name}: {error}"))
    return entries, problems


def unknown(entry: Entry, known: Collection[str]) -> Problem:
    """Says which key was probably meant."""
    close = difflib.get_close_matches(entry.key, sorted(known), n=1, cutoff=_SIMILAR)
    hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"
    return Problem(line=entry.line, sentence=f"{entry.key} is no key of a job file{hint}")


def _entry(key: str, value: object, line: int) -> Entry:
    match value:
        case bool():
            return Entry(key=key, line=line, shape=Shape.YES if value else Shape.NO)
        case str() | int():
            return Entry(key=key, line=line, shape=Shape.ONE, words=(str(value),))
        case list():
            return Entry(key=key, line=line, shape=Shape.LIST, words=tuple(map(_word, value)))
        case dict():
            pairs = tuple(f"{name}={_word(each)}" for name, each in value.items())
            return Entry(key=key, line=line, shape=Shape.TABLE, words=pairs)
        case _:
            raise ValueError('a date or a time means nothing here; write text in "quotes"')


def _word(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int():
            return str(value)
        case _:
            raise ValueError('holds something that is no text and no number; write text in "quotes"')


def _syntax(sentence: str, text: str) -> Problem:
    found = _PLACE.fullmatch(sentence)
    if found is None:
        return Problem(line=0, sentence=f"no TOML: {sentence}")
    line = int(found.group(2)) if found.group(2) else text.count("\n") + 1
    return Problem(line=line, sentence=f"no TOML: {found.group(1)}")


def _lines_of_keys(text: str) -> Mapping[tuple[str, str], int]:
    """Where each key of each table stands first, and with an empty key each table's header."""
    found: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in _lines_outside_text(text):
        header = _HEADER.fullmatch(line)
        if header:
            table = header.group(1)
            found.setdefault((table, ""), number)
            continue
        key = _KEY.match(line)
        if key:
            found.setdefault((table, next(name for name in key.groups()[:3] if name is not None)), number)
    return found


def _lines_outside_text(text: str) -> Iterator[tuple[int, str]]:
    """Lines that do not begin within a text of several lines."""
    until = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not until:
            yield number, line
        for mark in ('"""', "'''"):
            if until in {"", mark} and line.count(mark) % 2:
                until = "" if until else mark
                break
