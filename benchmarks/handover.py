"""A planned restart: one coordinator takes over from another, under agents that beat and bill."""

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.ground import Ground
from benchmarks.report import Figure
from tests.rig.parts import stop

RECORD_MS, BEAT_MS = 4_000, 5_000
LEAVE_S = 60.0


def planned(folder: Path, agents: int) -> list[Figure]:
    """Each agent is the agent's own link, with one running job."""
    ground = Ground(folder=folder, beat_interval_ms=BEAT_MS)
    ground.prepare(agents, 1)
    ground.start()
    first = ground.process
    assert first is not None
    told = [str(folder / "fleet.json"), ground.hosts, str(RECORD_MS)]
    with (folder / "crowd.log").open("wb") as log:
        crowd = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "tests.support.crowd", *told],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        try:
            assert crowd.stdout is not None
            crowd.stdout.readline()
            asked = time.monotonic()
            ground.start("--take-over")
            took_s = time.monotonic() - asked
            first.wait(LEAVE_S)
            seen = json.loads(crowd.communicate("finish\n")[0].splitlines()[-1])
        finally:
            crowd.kill()
            crowd.communicate()
            stop(first)
            ground.stop()
    lost = seen["made"] - seen["acknowledged"]
    gap_ms = max(0, seen["silent_ms_max"] - BEAT_MS)
    note = f"of {seen['made']} records; the hand-over took {took_s:.1f} s"
    return [
        Figure(
            figure=f"usage records and runs lost, planned restart, {agents} agents",
            ours=lost + len(seen["unwanted"]), bar="0", aim="0", ok=not lost and not seen["unwanted"],
            note=note,
        ),
        Figure(
            figure="ms by which the latest answer to a beat was late, planned restart", ours=gap_ms,
            aim=f"< {BEAT_MS}, no beat missed",
            note=f"a beat every {BEAT_MS} ms; {seen['connections']} connections, {2 * agents} is least",
        ),
    ]  # fmt: skip
