"""What containers use, as the kernel counts it in their control groups, of the old kind and the new."""

from pathlib import Path

from agent.domain.use import JobUse

ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")
# Engines put containers at most this deep: a slice, a slice in it, the engine's own, the container.
_DEPTH_MAX = 5
# On the old kind "no limit" is a number near the greatest there is.
_NO_LIMIT = 1 << 60


class Cgroups:
    """Control groups found by the container's id, which every engine puts into their name."""

    def __init__(self, root: Path = ROOT, proc: Path = PROC) -> None:
        self._root = root
        self._proc = proc
        self._unified = (root / "cgroup.controllers").exists()
        self._places: dict[str, Path] = {}

    def use(self, container_id: str) -> JobUse | None:
        """None where there is no group of this container."""
        place = self._places.get(container_id)
        top = self._root if self._unified else self._root / "memory"
        if place is None or not (top / place).exists():
            place = _find(top, container_id)
            if place is None:
                self._places.pop(container_id, None)
                return None
            self._places[container_id] = place
        return self._new(self._root / place) if self._unified else self._old(place)

    def forget(self, container_id: str) -> None:
        """It is not asked about any more."""
        self._places.pop(container_id, None)

    def _new(self, group: Path) -> JobUse:
        used_us = _table(group / "cpu.stat").get("usage_usec")
        received, sent = self._network(group)
        read, written = _new_io(group / "io.stat")
        return JobUse(
            cpu_ms=None if used_us is None else used_us // 1_000,
            memory_bytes=_in_use(_number(group / "memory.current"), group, "inactive_file"),
            memory_limit_bytes=_number(group / "memory.max"),
            processes=_number(group / "pids.current"),
            read_bytes=read,
            written_bytes=written,
            received_bytes=received,
            sent_bytes=sent,
        )

    def _old(self, place: Path) -> JobUse:
        memory = self._root / "memory" / place
        used_ns = _number(self._root / "cpuacct" / place / "cpuacct.usage")
        limit = _number(memory / "memory.limit_in_bytes")
        received, sent = self._network(memory)
        io = _table(self._root / "blkio" / place / "blkio.throttle.io_service_bytes", key=-2)
        return JobUse(
            cpu_ms=None if used_ns is None else used_ns // 1_000_000,
            memory_bytes=_in_use(_number(memory / "memory.usage_in_bytes"), memory, "total_inactive_file"),
            memory_limit_bytes=None if limit is None or limit >= _NO_LIMIT else limit,
            processes=_number(self._root / "pids" / place / "pids.current"),
            read_bytes=io.get("Read"),
            written_bytes=io.get("Write"),
            received_bytes=received,
            sent_bytes=sent,
        )

    def _network(self, group: Path) -> tuple[int | None, int | None]:
        """As one of its processes sees it: they share one network of their own."""
        pids = _lines(group / "cgroup.procs")
        lines = _lines(self._proc / pids[0] / "net" / "dev")[2:] if pids else []
        if not lines:
            return None, None
        counts = [line.replace(":", " ").split() for line in lines]
        outside = [count for count in counts if count[0] != "lo"]
        return sum(int(count[1]) for count in outside), sum(int(count[9]) for count in outside)


def _find(top: Path, container_id: str) -> Path | None:
    """Where in a hierarchy the container is, breadth first: most are near the top."""
    level = [top]
    for _ in range(_DEPTH_MAX):
        below = [child for folder in level for child in _folders(folder)]
        for child in below:
            if container_id in child.name:
                return child.relative_to(top)
        level = below
    return None


def _folders(folder: Path) -> list[Path]:
    try:
        return [child for child in folder.iterdir() if child.is_dir()]
    except OSError:  # it has just ended
        return []


def _lines(path: Path) -> list[str]:
    """Nothing where the file is not there, or no longer."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _table(path: Path, key: int = 0) -> dict[str, int]:
    """Lines that end in a number, by one of their words; what has the same word is added up."""
    table: dict[str, int] = {}
    for line in _lines(path):
        words = line.split()
        if len(words) >= 2 and words[-1].isdigit():
            table[words[key]] = table.get(words[key], 0) + int(words[-1])
    return table


def _new_io(path: Path) -> tuple[int | None, int | None]:
    lines = _lines(path)
    fields = [field.split("=") for line in lines for field in line.split()[1:] if "=" in field]
    counts = {name: sum(int(value) for key, value in fields if key == name) for name in ("rbytes", "wbytes")}
    return (counts["rbytes"], counts["wbytes"]) if lines else (None, None)


def _in_use(charged: int | None, group: Path, idle: str) -> int | None:
    """Without what is only kept of files in case they are read again."""
    return None if charged is None else max(0, charged - _table(group / "memory.stat").get(idle, 0))
