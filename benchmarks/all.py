"""Every benchmark, one after the other; writes docs/benchmarks.md and docs/benchmarks.svg.

    python -m benchmarks.all [--quick] [--only NAME,NAME] [--into FOLDER]

Each runs in a process of its own. What can't run is said, and so is what misses its bar without a remark.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.plot import bars
from benchmarks.report import Figure

NAMES = ("ledger", "wire", "dispatch", "matching", "agent", "growth", "firehose", "cli")
_HERE = Path(__file__).parent
_LONGEST_S = 2 * 3600
_PROGRAMS = {"PostgreSQL": ["postgres", "--version"], "Docker": ["dockerd", "--version"]}
_PACKAGES = ("grpcio", "protobuf", "sqlalchemy", "psycopg", "uvloop")
_BAR = re.compile(r"(<=|>=) ([0-9.]+)( x)?")


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one benchmark has told. `failed` says why it told nothing."""

    name: str
    figures: Sequence[Figure] = ()
    failed: str = ""


def run(name: str, *, quick: bool) -> Part:
    argv = [sys.executable, "-m", f"benchmarks.{name}", "--json", *(["--quick"] if quick else [])]
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, text=True, check=False, timeout=_LONGEST_S, cwd=_HERE.parent
        )
    except subprocess.TimeoutExpired:
        return Part(name=name, failed=f"it took more than {_LONGEST_S // 3600} hours")
    # One that has missed a bar may say so with its status, too.
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            return Part(name=name, figures=[Figure(**told) for told in json.loads(line)["figures"]])
    return Part(name=name, failed=f"it ended with status {done.returncode} and told nothing")


def page(parts: Sequence[Part], remarks: Mapping[str, Mapping[str, str]], about: Sequence[str]) -> str:
    """What docs/benchmarks.md says."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`. Each figure stands beside the floor or the peer of the same run; the ratio is",
        "what the bar is about. It holds for the machine named here, and no further.",
        "",
        *(f"- {line}" for line in about),
        "",
        "![How each figure stands to its bar](benchmarks.svg)",
    ]
    for part in parts:
        lines += ["", f"## {part.name}", "", f"`python -m benchmarks.{part.name}`", ""]
        if part.failed:
            lines.append(f"**It could not be run here:** {part.failed}.")
            continue
        lines += [
            "| figure | ours | floor | ratio | bar | aim | |",
            "| --- | --: | --: | --: | --- | --- | --- |",
        ]
        lines += [_row(figure) for figure in part.figures]
        notes = [line for figure in part.figures for line in _notes(figure, remarks)]
        lines += ["", *notes] if notes else []
    return "\n".join(lines) + "\n"


def _row(figure: Figure) -> str:
    verdict = {True: "ok", False: "**below**", None: ""}[figure.ok]
    numbers = [_number(value) for value in (figure.ours, figure.floor, figure.ratio)]
    return "| " + " | ".join([figure.figure, *numbers, figure.bar, figure.aim, verdict]) + " |"


def _notes(figure: Figure, remarks: Mapping[str, Mapping[str, str]]) -> list[str]:
    notes = [f"- {figure.figure}: {figure.note}"] if figure.note else []
    if figure.ok is False:
        found = [remark for name, remark in remarks.items() if figure.figure.startswith(name)]
        told = [f"{remark['reason']} Next: {remark['next']}" for remark in found] or [
            "nobody has said why yet."
        ]
        notes.append(f"- **Below its bar**, {figure.figure}: {told[0]}")
    return notes


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def beside_bars(parts: Sequence[Part]) -> list[tuple[str, float]]:
    """How often each figure fits into its bar; above 1 it is reached."""
    found = []
    for figure in (figure for part in parts for figure in part.figures):
        bar = _BAR.search(figure.bar)
        value = None if bar is None else figure.ratio if bar[3] else figure.ours
        if bar is not None and value and float(bar[2]):
            fits = float(bar[2]) / value if bar[1] == "<=" else value / float(bar[2])
            found.append((figure.figure, fits))
    return found


def about(*, quick: bool, now: datetime) -> list[str]:
    """The machine, the versions, the moment."""
    told = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.+)", told)
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    commit = _said(["git", "rev-parse", "--short", "HEAD"])
    lines = [
        f"{now:%Y-%m-%d %H:%M} UTC, commit {commit}, load before it {load}",
        f"{os.cpu_count()} x {model[1] if model else platform.machine()}, {memory_gib:.0f} GiB,"
        f" {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        *(f"{name}: {_said(argv)}" for name, argv in _PROGRAMS.items() if shutil.which(argv[0])),
    ]
    if quick:
        lines.append("**QUICK=1: small runs, of which the figures say little**")
    return lines


def _said(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=_HERE)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, in some minutes")
    parser.add_argument("--only", default=",".join(NAMES), help="some of them, by name")
    parser.add_argument("--into", type=Path, default=_HERE.parent / "docs", help="where to write")
    given = parser.parse_args()
    told = about(quick=given.quick, now=datetime.now(UTC))
    parts = []
    for name in given.only.split(","):
        print(f"benchmarks.{name} …", file=sys.stderr, flush=True)
        parts.append(run(name, quick=given.quick))
    remarks = tomllib.loads((_HERE / "remarks.toml").read_text())
    (given.into / "benchmarks.md").write_text(page(parts, remarks, told))
    picture = bars("How often each figure fits into its bar; above 1 it is reached", beside_bars(parts))
    (given.into / "benchmarks.svg").write_text(picture)
    below = [figure.figure for part in parts for figure in part.figures if figure.ok is False]
    failed = [f"{part.name}: {part.failed}" for part in parts if part.failed]
    print(f"wrote {given.into / 'benchmarks.md'}")
    print(f"below their bars: {below or 'none'}; failed: {failed or 'none'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
