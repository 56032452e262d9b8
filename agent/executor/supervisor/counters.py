"""What the kernel counts against a container: processes killed for memory, processes refused, places full.

The engine's own word on memory comes late, and under version 2 of cgroups not always; and the counters go
with the container. So they are opened while it runs, and read whenever the supervisor wakes. The kernel's own
news of them wakes it, where there is any: version 1 has none of memory.
"""

import contextlib
import os

_CGROUPS = "/sys/fs/cgroup"
_READ_BYTES = 4_096
# Where a container writes. Each is memory with a limit.
_PLACES = ("/workspace", "/tmp", "/dev/shm")  # noqa: S108 - of the container


class Counters:
    """Of the cgroup that a process is in. Nothing here raises: what can't be read was not counted."""

    def __init__(self, pid: int) -> None:
        self.oom_kills = 0
        self.forks_refused = 0
        # Descriptor -> the name of what it counts.
        self._files: dict[int, str] = {}
        paths = _paths(pid)
        if "memory" in paths:
            self._open(f"{_CGROUPS}/memory{paths['memory']}/memory.oom_control", "oom_kill")
        elif "" in paths:
            self._open(f"{_CGROUPS}{paths['']}/memory.events", "oom_kill")
        pids = f"{_CGROUPS}/pids{paths['pids']}" if "pids" in paths else f"{_CGROUPS}{paths.get('', '')}"
        self._open(f"{pids}/pids.events", "max")
        # A place that is open stays as it was left when the container is gone.
        self._places: dict[str, int] = {}
        for path in _PLACES:
            with contextlib.suppress(OSError):
                flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                self._places[path] = os.open(f"/proc/{pid}/root{path}", flags)
        self.look()

    def alarms(self) -> list[int]:
        """They have something urgent when there is news. (They are always readable.)"""
        return list(self._files)

    def look(self) -> None:
        for file, name in list(self._files.items()):
            try:
                count = count_of(os.pread(file, _READ_BYTES, 0).decode(), name)
            except OSError:
                # The cgroup is gone, which would be news for ever.
                del self._files[file]
                os.close(file)
                continue
            if name == "max":
                self.forks_refused = max(self.forks_refused, count)
            else:
                self.oom_kills = max(self.oom_kills, count)

    def full(self) -> list[str]:
        """The places that have no room left."""
        found = []
        for path, place in self._places.items():
            with contextlib.suppress(OSError):
                status = os.fstatvfs(place)
                if status.f_blocks and not status.f_bavail:
                    found.append(path)
        return found

    def _open(self, path: str, name: str) -> None:
        with contextlib.suppress(OSError):
            self._files[os.open(path, os.O_RDONLY | os.O_CLOEXEC)] = name


def count_of(text: str, name: str) -> int:
    """A file of lines, each a name and a number; 0 where it is not there."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name:
            return int(words[1])
    return 0


def _paths(pid: int) -> dict[str, str]:
    """By controller; that of the unified hierarchy has no name."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    fields = [line.split(":", 2) for line in lines]
    return {controller: path for _, names, path in fields for controller in names.split(",")}
