"""`make fuzz REQUESTS=100000`: prints what the requests were answered with, and what should not have been."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from runtime.clock import SystemClock
from tests.fuzz.attack import Found, attack
from tests.support.running_coordinator import prepare, running
from tests.support.signing_in import cheap

SHOWN_MAX = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    clock = SystemClock()
    began_ms = clock.boot_ms()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(_run(Path(folder) / "data", chosen.seed, chosen.requests))
    seconds = (clock.boot_ms() - began_ms) / 1_000
    print(f"{found.requests} requests in {seconds:.0f} s, seed {chosen.seed}")
    print(", ".join(f"{answer} {count}" for answer, count in found.answers.most_common()))
    print(f"memory {found.rss_mb_early:.0f} MB after a third, {found.rss_mb_late:.0f} MB in the end")
    print(f"tasks {found.tasks_before} before, {found.tasks_after} after")
    for line in found.broken[:SHOWN_MAX]:
        print("BROKEN", line)
    print(f"{len(found.broken)} broken")
    return 1 if found.broken else 0


async def _run(folder: Path, seed: int, count: int) -> Found:
    settings = cheap(
        prepare(folder),
        account_requests_burst=1_000_000,
        account_requests_per_second=1_000_000,
        enrolments_burst=1_000_000,
        account_streams_max=1_000_000,
    )
    async with running(settings) as market:
        return await attack(market, seed, count)


if __name__ == "__main__":
    sys.exit(main())
