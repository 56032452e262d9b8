"""Values as text for people and as JSON for programs. Pure.

Text that came from strangers passes `safe` before it may reach a terminal.
"""

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from enum import Enum

from cli.model import Gpu, LimitCount, Offer
from runtime import text as texts

SCHEMA_VERSION = 1

Json = None | bool | int | str | list["Json"] | dict[str, "Json"]


def safe(text: str) -> str:
    """The text with everything escaped that a terminal could take for more than text."""
    return texts.printable(text)


def amount(micro: int) -> str:
    """Credits: at least two decimals, exact, without the unit."""
    return texts.amount(micro)


def in_credits(micro: int) -> str:
    return f"{amount(micro)} credits"


def duration(ms: int) -> str:
    """Two units at most: "2 h 5 min", "3 min 20 s", "4.321 s"."""
    seconds, rest_ms = divmod(ms, 1_000)
    if seconds < 60:
        return f"{seconds}.{rest_ms:03} s" if rest_ms else f"{seconds} s"
    if seconds < 3_600:
        return _two(seconds // 60, "min", seconds % 60, "s")
    minutes = seconds // 60
    if minutes < 48 * 60:
        return _two(minutes // 60, "h", minutes % 60, "min")
    return _two(minutes // 1_440, "d", minutes % 1_440 // 60, "h")


def _two(most: int, most_unit: str, rest: int, rest_unit: str) -> str:
    return f"{most} {most_unit}" + (f" {rest} {rest_unit}" if rest else "")


def size(count: int) -> str:
    """Binary gigabytes to the nearest tenth: a "24 GB" board has 24 of these, or just less."""
    tenths = (10 * count + 2**29) // 2**30
    return f"{tenths // 10} GiB" if tenths % 10 == 0 else f"{tenths // 10}.{tenths % 10} GiB"


def percent(ppm: int) -> str:
    text = f"{ppm // 10_000}.{ppm % 10_000:04}".rstrip("0").rstrip(".")
    return f"{text} %"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def words(choice: Enum) -> str:
    """A choice as people say it: HOST_LOST is "host lost"."""
    return str(choice.value).lower().replace("_", " ")


def gpu_name(model: str, *, simulated: bool) -> str:
    marked = simulated and "SIMULATED" not in model.upper()
    return ("SIMULATED " if marked else "") + safe(model)


def gpu_names(gpus: Sequence[Gpu]) -> str:
    models = sorted({gpu_name(gpu.model, simulated=gpu.simulated) for gpu in gpus})
    return f"{len(gpus)} x {', '.join(models)}" if gpus else "no GPU"


def offer_text(offer: Offer) -> str:
    place = f", region {safe(offer.region)}" if offer.region else ""
    return (
        f"{offer.host_id}: {offer.gpu_count_free} x "
        f"{gpu_name(offer.gpu_model, simulated=offer.simulated)} ({size(offer.vram_bytes)}) free, "
        f"{words(offer.isolation)} by {safe(offer.executor)}{place}"
    )


def limit_lines(limits: Sequence[LimitCount]) -> list[str]:
    return [
        f"{plural(limit.host_count, 'host')} left out: {safe(limit.limit)}"
        + (f" ({safe(limit.remedy)})" if limit.remedy else "")
        for limit in limits
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


# What a screen is made of: lines, and tables whose form depends on the room there is.
Part = str | Table
_NOTHING = "-"
# Where a fact begins, after its name.
INDENT = 12


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Part]:
    return [Table(headings=headings, rows=rows)]


def lay_out(parts: Sequence[Part], width: int = 0) -> list[str]:
    """As lines of at most this width, where that can be; 0 is no limit."""
    # Whatever was forgotten to be made safe before, here is the last place.
    return [
        safe(line)
        for part in parts
        for line in (_wrapped(part, width) if isinstance(part, str) else _table_lines(part, width))
    ]


def _wrapped(line: str, width: int) -> list[str]:
    """At words; what follows a name goes on below itself, not below the name."""
    if not width or len(line) <= width or width < 2 * INDENT:
        return [line]
    below = " " * INDENT if line[INDENT - 1] == " " != line[INDENT] else ""
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=below,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )


def _table_lines(whole: Table, width: int) -> list[str]:
    """Columns in line. Where they don't fit, without those that say nothing, or else each row by itself."""
    lines = _columns(whole)
    if not width or max(map(len, lines)) <= width:
        return lines
    telling = [
        number
        for number in range(len(whole.headings))
        if any(row[number] not in {"", _NOTHING} for row in whole.rows)
    ]
    shorter = Table(
        headings=[whole.headings[number] for number in telling],
        rows=[[row[number] for number in telling] for row in whole.rows],
    )
    lines = _columns(shorter)
    if max(map(len, lines)) <= width:
        return lines
    longest = max(map(len, shorter.headings))
    names = [heading.ljust(longest) for heading in shorter.headings]
    blocks = [
        [f"{name}  {cell}" for name, cell in zip(names, row, strict=True) if cell] for row in shorter.rows
    ]
    return [line for number, block in enumerate(blocks) for line in (["", *block] if number else block)]


def _columns(whole: Table) -> list[str]:
    """Figures and other short things alike to the left, so that a narrow eye finds them."""
    lines = [whole.headings, *whole.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def to_json(value: object) -> Json:
    """A value of `cli.model` as JSON: field names as they are, bytes as hexadecimal."""
    match value:
        case Enum():
            return str(value.value)
        case None | bool() | int() | str():
            return value
        case bytes():
            return value.hex()
        case list() | tuple() | frozenset():
            return [to_json(item) for item in value]
        case dict():
            return {str(name): to_json(item) for name, item in value.items()}
        case _ if dataclasses.is_dataclass(value):
            return {
                field.name: to_json(getattr(value, field.name))
                for field in dataclasses.fields(value)
                if not field.metadata.get("hidden")
            }
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")


def document(**content: object) -> str:
    """One JSON object on one line, with the version of its form."""
    return json.dumps(
        {"schema_version": SCHEMA_VERSION} | {name: to_json(value) for name, value in content.items()}
    )
