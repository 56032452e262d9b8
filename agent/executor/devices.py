"""Looks, from the host's side, at what a started container can open.

Whoever joins a container's device cgroup is under its rules, whatever its root looks like: so a short-lived
process of ours joins it and opens the host's own nodes. Nothing need be in the image, both versions of
cgroups are the same to it, and it is the kernel that answers.
"""

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from agent.domain.devices import GPU_MAJOR, Access, Node

_CGROUPS = Path("/sys/fs/cgroup")
_WAIT_S = 20
_DEPTH_MAX = 4
# Any other answer than these two comes from behind the device rules: there is no such device, it is busy.
_OPENER = """
import errno, json, os, sys
with open(sys.argv[1], "w") as members:
    members.write(str(os.getpid()))
answers = {}
for minor, path in json.loads(sys.argv[2]).items():
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        answers[minor] = "open"
    except OSError as error:
        answers[minor] = {errno.EPERM: "refused", errno.EACCES: "unknown"}.get(error.errno, "open")
print(json.dumps(answers))
"""


class UnlookedError(Exception):
    """Nobody could look. The message says why."""


def access_of(pid: int, minors: Iterable[int]) -> dict[int, Access]:
    """What the process `pid` of a container may do with each of this host's GPUs. Raises UnlookedError."""
    with tempfile.TemporaryDirectory(prefix="usance-nodes-") as folder:
        nodes = {minor: _node(minor, Path(folder)) for minor in minors}
        argv = [sys.executable, "-I", "-S", "-c", _OPENER, str(_members(pid)), json.dumps(nodes)]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_WAIT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnlookedError(str(error)) from error
    if done.returncode != 0:
        raise UnlookedError(done.stderr.strip().rpartition("\n")[2])
    answers: Mapping[str, str] = json.loads(done.stdout)
    return {int(minor): Access(answer) for minor, answer in answers.items()}


def nodes_in(pid: int) -> list[Node]:
    """The device nodes below the container's /dev. Raises UnlookedError."""
    root = Path(f"/proc/{pid}/root/dev")
    try:
        return list(_nodes_below(root, "/dev", _DEPTH_MAX))
    except OSError as error:
        raise UnlookedError(str(error)) from error


def is_alive(pid: int) -> bool:
    """Is there such a process, and has it not ended?"""
    try:
        stat_line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat_line.rpartition(")")[2].split()[0] not in ("Z", "X")


def _nodes_below(folder: Path, shown: str, depth: int) -> Iterator[Node]:
    for entry in os.scandir(folder):
        path = f"{shown}/{entry.name}"
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            yield Node(
                path=path,
                is_block=stat.S_ISBLK(status.st_mode),
                major=os.major(status.st_rdev),
                minor=os.minor(status.st_rdev),
            )
        elif stat.S_ISDIR(status.st_mode) and depth > 0:
            yield from _nodes_below(folder / entry.name, path, depth - 1)


def _node(minor: int, folder: Path) -> str:
    """The host's own, or one like it: the rules go by its number."""
    node = Path(f"/dev/nvidia{minor}")
    if node.exists():
        return str(node)
    node = folder / node.name
    try:
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(GPU_MAJOR, minor))
    except OSError as error:
        raise UnlookedError(f"no node for GPU {minor}: {error}") from error
    return str(node)


def _members(pid: int) -> Path:
    """The list of members of the cgroup with the process's device rules."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UnlookedError(str(error)) from error
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "devices" in controllers.split(","):
            return _CGROUPS / "devices" / path.lstrip("/") / "cgroup.procs"
    unified = next((line.split(":", 2)[2] for line in lines if line.startswith("0::")), "")
    return _CGROUPS / unified.lstrip("/") / "cgroup.procs"
