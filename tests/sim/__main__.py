"""`python -m tests.sim --seeds 1000`: play seeds, print what was found, and how to see it again."""

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.sim.world import Outcome, play

STORY_LINES = 40


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--story", action="store_true", help="tell all that happens")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    outcomes: list[Outcome] = []
    if options.workers > 1 and len(seeds) > 1:
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            for outcome in pool.map(play, seeds, chunksize=4):
                _tell(outcome, options.story)
                outcomes.append(outcome)
    else:
        for seed in seeds:
            outcomes.append(play(seed))
            _tell(outcomes[-1], options.story)
    return _sum_up(outcomes)


def _tell(outcome: Outcome, whole: bool) -> None:
    if not outcome.violations and not whole:
        return
    print(f"--- seed {outcome.seed}, step {outcome.steps}")
    for line in outcome.story if whole else outcome.story[-STORY_LINES:]:
        print(line)
    for violation in outcome.violations:
        print(f"VIOLATION of seed {outcome.seed}: {violation}")
    print(f"again: python -m tests.sim --first {outcome.seed} --seeds 1 --story", flush=True)


def _sum_up(outcomes: list[Outcome]) -> int:
    faults: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.faults)
        seen.update(outcome.seen)
    bad = [outcome.seed for outcome in outcomes if outcome.violations]
    print(
        f"{len(outcomes)} seeds, {sum(o.steps for o in outcomes):,} steps,"
        f" {sum(o.commits for o in outcomes):,} commits,"
        f" {sum(o.virtual_s for o in outcomes) / 3600:.1f} h of market"
        f" in {sum(o.wall_s for o in outcomes):.0f} s of work"
    )
    for title, counter in (("faults", faults), ("seen", seen)):
        print(f"{title}:")
        for kind, count in sorted(counter.items()):
            print(f"  {count:8,}  {kind}")
    print(f"violations in {len(bad)} seeds: {bad}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
