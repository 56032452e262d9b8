"""A real systemd: process 1 of namespaces of its own, with no units but those that a test gives it.

It sees this machine's files, but has /etc, /run, /tmp and /var/lib to itself: what it and its services write
there goes with it. The network is ours, so that a service finds what a test serves on the loopback interface.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.rig import leftovers
from tests.rig.parts import Folder, MissingError, find_program, spawn, stop, sweep, wait_until

_KIND = "systemd"
_PROGRAM = Path("/lib/systemd/systemd")
_CGROUPS = Path("/sys/fs/cgroup")
# Where folders that a test shares with it are; services with a /tmp and homes of their own find them, too.
SHARED = Path("/run/shared")
_UNITS = {
    # This machine's kernel has a log of its own, which is none of a test's.
    "journald.conf": "[Journal]\nReadKMsg=no\nAudit=no\nStorage=volatile\n",
    "machine.target": "[Unit]\nRequires=systemd-journald.socket\n",
    **dict.fromkeys(
        ("basic.target", "sysinit.target", "shutdown.target", "network-online.target"), "[Unit]\n"
    ),
    "systemd-journald.socket": "[Unit]\nDefaultDependencies=no\n[Socket]\n"
    "ListenStream=/run/systemd/journal/stdout\nListenDatagram=/run/systemd/journal/socket\nPassCredentials=yes\n",
    "systemd-journald.service": "[Unit]\nDefaultDependencies=no\nRequires=systemd-journald.socket\n"
    "[Service]\nType=notify\nExecStart=/lib/systemd/systemd-journald\nStandardOutput=null\n",
}


class Systemd:
    """A machine that has booted."""

    def __init__(self, units: Mapping[str, str], shared: Mapping[str, Path]) -> None:
        if os.geteuid() != 0:
            raise MissingError("root's rights", "run the tests as root")
        if not _PROGRAM.exists():
            raise MissingError("systemd", "apt-get install systemd")
        if not leftovers.device_cgroups_are_files():
            raise MissingError("cgroup v1", "boot with systemd.unified_cgroup_hierarchy=0")
        sweep(_KIND, leftovers.remove)
        self._folder = Folder(_KIND)
        try:
            self._boot({**_UNITS, **units}, shared)
        except BaseException:
            self._remove()
            raise

    @property
    def path(self) -> Path:
        return self._folder.path

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` on the machine."""
        return ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--uts", "--ipc", *argv]

    def run(self, *argv: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        inside = self.inside(argv)
        return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=60, input=typed)

    def ask(self, unit: str, *names: str) -> dict[str, str]:
        """What it says of a unit's properties."""
        lines = self.run("systemctl", "show", unit, f"--property={','.join(names)}").stdout.splitlines()
        return dict(line.split("=", 1) for line in lines)

    def file(self, path: str) -> Path:
        """A file of the machine's, as it is found from here."""
        return Path(f"/proc/{self._pid}/root{path}")

    def pids(self, unit: str) -> set[int]:
        """All processes of a unit, by our own numbers for them."""
        found = set[int]()
        for group in leftovers.cgroups(self.path):
            # A group without processes goes, perhaps just now.
            with suppress(FileNotFoundError):
                told = (group / "system.slice" / unit / "cgroup.procs").read_text()
                found |= {int(pid) for pid in told.split()}
        return found

    def stop(self) -> None:
        # As when the power goes: nobody in its namespaces outlives process 1.
        stop(self._process, by=signal.SIGKILL)
        self._remove()

    def _boot(self, units: Mapping[str, str], shared: Mapping[str, Path]) -> None:
        folder = self.path / "units"
        for name, text in units.items():
            unit = folder / name
            unit.parent.mkdir(parents=True, exist_ok=True)
            unit.write_text(text)
        join = [f"echo $$ > {group}/cgroup.procs" for group in self._groups()]
        unshare = str(find_program("unshare", how="apt-get install util-linux"))
        own = ["--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--cgroup"]
        steps = "\n".join(_steps({**shared, "units": folder}))
        argv = ["sh", "-ec", "\n".join([*join, 'exec "$@"']), "sh", unshare, *own, "sh", "-ec", steps]
        self._log = self.path / "log"
        self._process = spawn(argv, log=self._log, dies_with="KILL")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        wait_until(lambda: self._lives() and bool(children.read_text().split()), "it has its namespaces")
        self._pid = int(children.read_text().split()[0])

        def is_up() -> bool:
            return self._lives() and self.ask("machine.target", "ActiveState") == {"ActiveState": "active"}

        wait_until(is_up, f"systemd is up; see {self._log}")

    def _groups(self) -> list[Path]:
        """One in each hierarchy: it takes the group that it is in for the root, and makes others below."""
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        groups = [
            Path(place, self.path.name) for _, place, kind, *_ in mounts if kind in ("cgroup", "cgroup2")
        ]
        for group in groups:
            group.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group, which then takes nobody in
                if (group / name).exists():
                    (group / name).write_text((group.parent / name).read_text())
        return groups

    def _lives(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"it ended at once:\n{self._log.read_text()}")
        return True

    def _remove(self) -> None:
        leftovers.remove(self.path)
        self._folder.release()


def _steps(shared: Mapping[str, Path]) -> list[str]:
    """From a shell in fresh namespaces to systemd. Shared folders come first, before others hide them."""
    return [
        "mount --make-rprivate /",
        "mount -t proc proc /proc",
        "mount -t tmpfs -o mode=755 none /mnt",
        *(f"mkdir /mnt/{name} && mount --bind {path} /mnt/{name}" for name, path in shared.items()),
        "mount -t tmpfs -o mode=755 none /run",
        f"mkdir -p {SHARED} /run/etc/new /run/etc/work",
        *(f"mkdir {SHARED}/{name} && mount --move /mnt/{name} {SHARED}/{name}" for name in shared),
        "umount /mnt",
        "mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc/new,workdir=/run/etc/work /etc",
        *(f"mount -t tmpfs -o mode={mode} none {path}" for path, mode in _OWN.items()),
        # It mounts there what it needs.
        f"mount -t tmpfs -o mode=755 none {_CGROUPS}",
        "mkdir -p /etc/systemd/journald.conf.d",
        f"cp {SHARED}/units/journald.conf /etc/systemd/journald.conf.d/own.conf",
        f"export container=other SYSTEMD_UNIT_PATH={SHARED}/units",
        f"exec {_PROGRAM} --system --unit=machine.target --log-target=journal "
        "--show-status=no --default-standard-output=journal --default-standard-error=inherit",
    ]


_OWN = {"/var/lib": "755", "/var/tmp": "1777", "/var/log": "755", "/tmp": "1777"}


@contextmanager
def running_systemd(units: Mapping[str, str], shared: Mapping[str, Path]) -> Iterator[Systemd]:
    """For the length of a block; raises parts.MissingError where it can't run."""
    machine = Systemd(units, shared)
    try:
        yield machine
    finally:
        machine.stop()
