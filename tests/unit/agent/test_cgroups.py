"""What containers use, read from control groups of both kinds as kernels write them."""

from pathlib import Path

import pytest

from agent.cgroups import Cgroups
from agent.domain.use import JobUse, cpu_milli

ID = "4f1c" * 16
# A line for each interface: eight figures of what came in, then eight of what went out.
NET = """Inter-|   Receive  |  Transmit
 face |bytes packets ...|bytes packets ...
    lo:    1000 10 0 0 0 0 0 0 1000 10 0 0 0 0 0 0
  eth0: 5000 50 0 0 0 0 0 0 700 7 0 0 0 0 0 0
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    write(tmp_path / "proc", {"4711/net/dev": NET})
    return tmp_path / "proc"


@pytest.mark.parametrize(
    "place", [f"docker/{ID}", f"system.slice/docker-{ID}.scope", f"a.slice/b.slice/{ID}"]
)
def test_the_old_kind(tmp_path, proc, place):
    root = tmp_path / "cgroup"
    files = {
        f"memory/{place}/memory.usage_in_bytes": "3000000\n",
        f"memory/{place}/memory.limit_in_bytes": "64000000\n",
        f"memory/{place}/memory.stat": "cache 5\ntotal_inactive_file 1000000\n",
        f"memory/{place}/cgroup.procs": "4711\n4712\n",
        f"cpuacct/{place}/cpuacct.usage": "2500000000\n",
        f"pids/{place}/pids.current": "2\n",
        f"blkio/{place}/blkio.throttle.io_service_bytes": (
            "8:0 Read 100\n8:0 Write 20\n8:16 Read 1\n8:16 Write 2\nTotal 123\n"
        ),
    }
    write(root, files)
    assert Cgroups(root, proc).use(ID) == JobUse(
        cpu_ms=2_500,
        memory_bytes=2_000_000,
        memory_limit_bytes=64_000_000,
        processes=2,
        read_bytes=101,
        written_bytes=22,
        received_bytes=5_000,
        sent_bytes=700,
    )


@pytest.mark.parametrize("place", [f"docker/{ID}", f"system.slice/docker-{ID}.scope"])
def test_the_new_kind(tmp_path, proc, place):
    root = tmp_path / "cgroup"
    files = {
        "cgroup.controllers": "cpu io memory pids\n",
        f"{place}/memory.current": "3000000\n",
        f"{place}/memory.max": "64000000\n",
        f"{place}/memory.stat": "anon 5\ninactive_file 1000000\n",
        f"{place}/cgroup.procs": "4711\n",
        f"{place}/cpu.stat": "usage_usec 2500999\nuser_usec 1\n",
        f"{place}/pids.current": "1\n",
        f"{place}/io.stat": "8:0 rbytes=100 wbytes=20 rios=1 wios=1\n8:16 rbytes=1 wbytes=2 rios=1 wios=1\n",
    }
    write(root, files)
    assert Cgroups(root, proc).use(ID) == JobUse(
        cpu_ms=2_500,
        memory_bytes=2_000_000,
        memory_limit_bytes=64_000_000,
        processes=1,
        read_bytes=101,
        written_bytes=22,
        received_bytes=5_000,
        sent_bytes=700,
    )


def test_what_is_not_told_is_absent(tmp_path, proc):
    old, new = tmp_path / "old", tmp_path / "new"
    write(old, {f"memory/docker/{ID}/memory.limit_in_bytes": "9223372036854771712\n"})
    write(new, {"cgroup.controllers": "", f"docker/{ID}/memory.max": "max\n"})
    assert Cgroups(old, proc).use(ID) == Cgroups(new, proc).use(ID) == JobUse()


def test_a_container_that_is_gone_has_no_use(tmp_path, proc):
    root = tmp_path / "cgroup"
    write(root, {"cgroup.controllers": "", f"docker/{ID}/pids.current": "1\n"})
    groups = Cgroups(root, proc)
    assert groups.use("0" * 64) is None
    assert groups.use(ID) == JobUse(processes=1)
    (root / "docker" / ID).rename(root / ID)
    assert groups.use(ID) == JobUse(processes=1)
    groups.forget(ID)
    (root / ID / "pids.current").unlink()
    (root / ID).rmdir()
    assert groups.use(ID) is None


@pytest.mark.parametrize(
    ("before", "after", "passed_ms", "expected"),
    [(1_000, 3_500, 5_000, 500), (None, 5, 5, None), (5, None, 5, None), (5, 4, 5, None), (5, 9, 0, None)],
)
def test_processor_time_as_a_share(before, after, passed_ms, expected):
    assert cpu_milli(JobUse(cpu_ms=before), JobUse(cpu_ms=after), passed_ms) == expected
