"""Figures in the text format that Prometheus reads."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a figure moves: a counter only grows, or begins anew."""

    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One figure, and of what it is one."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, kw_only=True)
class Family:
    """All figures of one name."""

    name: str
    help: str
    kind: Kind
    samples: tuple[Sample, ...]


def render(families: Iterable[Family]) -> str:
    """Families without figures are left out: a figure that is not told is absent."""
    lines: list[str] = []
    for family in families:
        if family.samples:
            lines += [
                f"# HELP {family.name} {_escaped(family.help, quotes=False)}",
                f"# TYPE {family.name} {family.kind}",
            ]
            lines += [f"{family.name}{_labels(s.labels)} {_number(s.value)}" for s in family.samples]
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: Mapping[str, str]) -> str:
    written = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{written}}}" if written else ""


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
