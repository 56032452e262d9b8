"""A market that three people set up by typing commands: what the quick starts and the recorded session need.

What a machine of ours lacks is put in place of what the pages say, and nothing else: addresses, folders, and,
for want of GPUs and images, a simulated GPU and plain processes.
"""

import itertools
import os
import pty
import re
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.rig.parts import free_port
from tests.support.market import WholeMarket

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_PROGRAMS = {"usance": "cli", "usance-agent": "agent", "usance-coordinator": "coordinator"}
_LIMIT_S = 120
_NUMBERS = itertools.count(1)
_WIDTH = 110


def blocks(page: Path) -> list[str]:
    """The commands of a page, block by block."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


@dataclass
class Town:
    """`sh` types as a person; `stop` leaves nothing."""

    folder: Path
    instead: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        people, hosts = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.server = people
        model = "s/SIMULATED GPU/SIMULATED NVIDIA GeForce RTX 4090/"
        settings = f"sed 's,/var/lib/usance,{self.folder}/agent,; {model}'"
        without_gpus = "--executor process --allow-process-executor --trusted-account alice"
        without_gpus += " --simulated-gpus 2"
        self.instead = {
            "market.example.org:7410": people,
            "0.0.0.0:7410": people,
            "market.example.org:7411": hosts,
            "0.0.0.0:7411": hosts,
            "/var/lib/usance-coordinator": f"{self.folder}/coordinator",
            "/etc/usance": f"{self.folder}/etc",
            "usance-agent settings": f"usance-agent settings | {settings}",
            "usance-agent enroll": f"usance-agent enroll --config {self.folder}/etc/agent.toml",
            "usance-agent run": f"usance-agent run --config {self.folder}/etc/agent.toml {without_gpus}",
            "--gpu rtx4090": "--gpu rtx4090 --simulated",
            "--image python:3.12": "--isolation process",
            'image = "python:3.12"': 'isolation = "process"\nsimulated = true',
            " HOST\n": f" {socket.gethostname()}\n",
        }
        programs = self.folder / "bin"
        programs.mkdir(parents=True)
        for name, module in _PROGRAMS.items():
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
            program.chmod(0o755)

    def sh(self, person: str, commands: str) -> str:
        """What the commands print. Raises AssertionError when one fails; what ends in & goes on."""
        for said, meant in self.instead.items():
            commands = commands.replace(said, meant)
        # A file for each: what goes on in the background goes on writing to its own.
        shown = self.folder / f"shown-{next(_NUMBERS)}"
        with shown.open("wb") as out:
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", commands],
                cwd=self._work(),
                env=self.environment(person),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                timeout=_LIMIT_S,
                check=False,
            )
        text = shown.read_text(errors="replace")
        assert done.returncode == 0, f"{commands}\n{text}"
        return text

    def at_terminal(self, person: str, command: str, keys: str = "", after: str = "") -> str:
        """What a terminal shows of a command; `keys` are typed when `after` is to be read."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            ["setsid", "--ctty", "bash", "-c", f"stty cols {_WIDTH}; {command}"],
            cwd=self._work(),
            env=self.environment(person),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        shown, end_s = b"", time.monotonic() + _LIMIT_S
        try:
            while time.monotonic() < end_s:
                if not select.select([ours], [], [], 1)[0]:
                    continue
                try:
                    data = os.read(ours, 65_536)
                except OSError:  # the last program at the terminal has ended
                    break
                shown += data
                if keys and after.encode() in shown:
                    os.write(ours, keys.encode())
                    keys = ""
        finally:
            os.close(ours)
            process.kill() if time.monotonic() >= end_s else None
            process.wait()
        return shown.decode(errors="replace").replace("\r\n", "\n")

    def environment(self, person: str) -> dict[str, str]:
        home = self.folder / person
        home.mkdir(exist_ok=True)
        outside = {
            name: value
            for name, value in os.environ.items()
            # A terminal knows its own size, whatever the runner of the tests says of its.
            if not name.startswith(("USANCE_", "XDG_")) and name not in {"COLUMNS", "LINES"}
        }
        return {
            **outside,
            "HOME": str(home),
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}",
            "TZ": "UTC",
            "TERM": "dumb",
        }

    def stop(self) -> None:
        WholeMarket(self.folder).stop()

    def _work(self) -> Path:
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return work
