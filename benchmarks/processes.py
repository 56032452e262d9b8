"""The programs a benchmark starts: servers that are measured from outside, and a fleet that is spoken to."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.rig.parts import spawn, stop, wait_until

_TICKS = os.sysconf("SC_CLK_TCK")
_START_S = 60.0


def cpu_s(pid: int) -> float:
    """Processor time that a process and its threads have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} says nothing of its memory")


def family_cpu_s(root: int) -> float:
    """A process and all that descend from it, those that have ended included."""
    total = 0.0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(entry.name) == root or int(fields[1]) == root:
                total += sum(int(ticks) for ticks in fields[11:15]) / _TICKS
    return total


def children(parent: int) -> list[int]:
    found = list[int]()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and int(_fields(entry)[1]) == parent:
                found.append(int(entry.name))
    return found


def _fields(process: Path) -> list[str]:
    """Of its state, from the second on: what stands before may hold anything."""
    return (process / "stat").read_text().rpartition(")")[2].split()


class Floor:
    """A server of `floors.py`."""

    def __init__(self, kind: str, folder: Path) -> None:
        log = folder / f"{kind}.log"
        log.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "benchmarks.floors", kind, str(folder / "server.json")]
        self._process = spawn(argv, log=log)
        self.pid = self._process.pid

        def ready() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"the {kind} floor ended at once:\n{log.read_text()}")
            return "ready " in log.read_text()

        wait_until(ready, f"the {kind} floor is ready", deadline_s=_START_S)
        port = log.read_text().split("ready ", 1)[1].split()[0]
        self.target = f"127.0.0.1:{port}"

    def stop(self) -> None:
        stop(self._process)


class Fleet:
    """A process of `fleet.py`."""

    def __init__(self, kind: str, folder: Path, target: str) -> None:
        setpriv = ["setpriv", "--pdeathsig", "TERM"]
        argv = [sys.executable, "-m", "benchmarks.fleet", kind, str(folder / "fleet.json"), target]
        self._log = (folder / "fleet.log").open("ab")
        self._process = subprocess.Popen(
            [*setpriv, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, do: str, **what: object) -> dict[str, Any]:
        self.tell(do, **what)
        return self.answer()

    def tell(self, do: str, **what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the fleet ended: {Path(self._log.name).read_text()[-2_000:]}")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()
