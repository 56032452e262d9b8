"""`python -m tests.chaos --minutes 15 --seed 1`: abuse a market of real processes, and say what was found."""

import argparse
import sys
from pathlib import Path

from tests.chaos.play import Outcome, play
from tests.rig.parts import MissingError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--minutes", type=float, default=15, help="how long faults come")
    parser.add_argument("--seed", type=int, default=1, help="which faults, and which jobs")
    parser.add_argument("--keep", type=Path, help="a folder for all logs")
    options = parser.parse_args()
    try:
        outcome = play(options.seed, options.minutes * 60, lambda text: print(text, flush=True), options.keep)
    except MissingError as missing:
        print(f"chaos needs {missing.what}: {missing.how}", file=sys.stderr)
        return 2
    return _sum_up(options.seed, outcome)


def _sum_up(seed: int, outcome: Outcome) -> int:
    engine, supervisor = outcome.witnessed
    print(
        f"seed {seed}: {outcome.jobs} jobs, {sum(outcome.faults.values())} faults, at rest after"
        f" {outcome.calm_s:.0f} s; looked {outcome.looks} times ({outcome.missed_looks} more the database was"
        f" away); {engine} attempts witnessed by the engine, {supervisor} by supervisors; {outcome.records}"
        " records in journals"
    )
    for title, counts in (
        ("faults", outcome.faults),
        ("buyers", outcome.ways),
        ("started anew", outcome.starts),
    ):
        print(f"{title}:")
        for kind, count in sorted(counts.items()):
            print(f"  {count:6,}  {kind}")
    print("attempts ended:")
    for row in outcome.ends:
        print(f"  {row['count']:6,}  {row['end_reason']} ({row['cause']})")
    for violation in outcome.violations:
        print(f"VIOLATION: {violation}")
    print(f"violations: {len(outcome.violations)}")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
