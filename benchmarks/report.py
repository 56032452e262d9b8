"""What every benchmark prints: our figure beside the floor or peer of the same run, for people or as JSON."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """`ratio` is what the bar is about: ours to the floor, whichever way the bar is written."""

    figure: str
    ours: float | None
    floor: float | None = None
    ratio: float | None = None
    bar: str = ""
    aim: str = ""
    # Did it reach the bar? None: there is none, or it could not be measured.
    ok: bool | None = None
    note: str = ""


def at_most(figure: str, ours: float, floor: float, bar: float, aim: float, note: str = "") -> Figure:
    """A cost: ours may be so many times the floor."""
    ratio = ours / floor
    return Figure(
        figure=figure,
        ours=ours,
        floor=floor,
        ratio=ratio,
        bar=f"<= {bar:g} x",
        aim=f"<= {aim:g} x",
        ok=ratio <= bar,
        note=note,
    )


def at_least(figure: str, ours: float, floor: float, bar: float, aim: float, note: str = "") -> Figure:
    """A yield: ours must be so many times the floor."""
    ratio = ours / floor
    return Figure(
        figure=figure,
        ours=ours,
        floor=floor,
        ratio=ratio,
        bar=f">= {bar:g} x",
        aim=f">= {aim:g} x",
        ok=ratio >= bar,
        note=note,
    )


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The flags that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small, in less than a minute")
    parser.add_argument("--json", action="store_true", help="print one object")
    return parser


def show(name: str, figures: Sequence[Figure], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"name": name, "figures": [asdict(figure) for figure in figures]}))
        return
    head = ("figure", "ours", "floor", "ratio", "at least", "aim", "")
    rows = [head, *(_cells(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:6], widths[1:6], strict=True)]
        print("  ".join([*cells, row[6]]).rstrip())
    for figure in figures:
        if figure.note:
            print(f"- {figure.figure}: {figure.note}")


def _cells(figure: Figure) -> tuple[str, str, str, str, str, str, str]:
    verdict = {True: "ok", False: "MISSED", None: ""}[figure.ok]
    numbers = (_number(figure.ours), _number(figure.floor), _number(figure.ratio))
    return (figure.figure, *numbers, figure.bar, figure.aim, verdict)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
