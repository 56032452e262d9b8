"""A Debian root in namespaces of its own: packages are installed in it by dpkg, and nothing stays.

What is below it is this machine's root, or a fresh one that debootstrap has made; it is never written to. Its
processes see each other alone, and its network is a loopback interface.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.rig.parts import Folder, spawn, sweep, wait_until

_KIND = "root"
STAND_IN = Path(__file__).with_name("stand_in_systemctl.py")
_LIMIT_S = 200
_BASH = ("bash", "-e", "-o", "pipefail", "-c")
_ENVIRONMENT = {
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "DEBIAN_FRONTEND": "noninteractive",
}
_PREPARE = """\
set -eu
base=$1 place=$2 shared=$3
mount -t tmpfs -o mode=755 tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$place/upper,workdir=$place/work" "$place/root"
cd "$place/root"
mount -t proc proc proc
for folder in tmp run dev; do mount -t tmpfs -o mode=755 tmpfs $folder; done
chmod 1777 tmp
mkdir -p dev/shm run/systemd/system run/lock
for device in null zero full random urandom; do touch dev/$device; mount --bind /dev/$device dev/$device; done
ln -s /proc/self/fd dev/fd
mount --bind "$shared" mnt
mkdir -p usr/local/bin
cp "$4" usr/local/lib/systemctl.py
# A minimal root has an interpreter of some version, and no plain "python3".
cat >usr/local/bin/systemctl <<'END'
#!/bin/sh
for python in /usr/bin/python3.[0-9]*; do exec "$python" -I /usr/local/lib/systemctl.py "$@"; done
END
chmod 755 usr/local/bin/systemctl
ip link set lo up
# Orphans come to it, and it takes their ends.
exec chroot . bash -c 'touch /run/holder; sleep infinity & wait $!'
"""


@dataclass(frozen=True)
class DebianRoot:
    """`sh` types as root in it."""

    holder: int
    place: Path

    def sh(self, commands: str, *, fails: bool = False) -> str:
        """What they print. Raises AssertionError when they fail, or, with `fails`, when they don't."""
        done = subprocess.run(
            [*self._enter, *self._root, *_BASH, commands],
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_LIMIT_S,
        )
        assert (done.returncode != 0) is fails, f"{commands}\nexits {done.returncode}:\n{done.stdout}"
        return done.stdout

    def changed(self) -> set[str]:
        """Files and folders that are not as they are below."""
        found = subprocess.run(
            [*self._enter, "find", str(self.place / "upper"), "-mindepth", "1", "-printf", "/%P\\n"],
            check=True,
            capture_output=True,
            text=True,
        )
        return set(found.stdout.splitlines())

    @property
    def _root(self) -> list[str]:
        root = f"/proc/{self.holder}/root"
        return [f"--root={root}", f"--wd={root}/root"]

    @property
    def _enter(self) -> list[str]:
        kinds = ("--mount", "--pid", "--net", "--uts", "--ipc")
        return ["nsenter", "--target", str(self.holder), *kinds]


@contextmanager
def debian_root(shared: Path, base: Path = Path("/")) -> Iterator[DebianRoot]:
    """`shared` is its /mnt."""
    sweep(_KIND, shutil.rmtree)
    folder = Folder(_KIND)
    place = folder.path / "place"
    place.mkdir()
    kinds = ("--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child")
    log = folder.path / "log"
    argv = ["unshare", *kinds, "--propagation", "private", "sh", "-c", _PREPARE, "sh"]
    process = spawn([*argv, *map(str, (base, place, shared, STAND_IN))], log=log, dies_with="KILL")

    def holder() -> int:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def prepared() -> bool:
        assert process.poll() is None, f"the root can't be made: {log.read_text()}"
        return bool(holder()) and Path(f"/proc/{holder()}/root/run/holder").exists()

    try:
        wait_until(prepared, "the root is made", deadline_s=60)
        yield DebianRoot(holder(), place)
    finally:
        if process.poll() is None:
            # The first process of its namespace takes all others with it.
            for child in [holder()] if holder() else []:
                os.kill(child, signal.SIGKILL)
            process.wait()
        folder.remove()


def fresh_base(folder: Path, packages: list[str]) -> None:
    """Make a minimal root by debootstrap, with what these packages depend on, from where apt here has it."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    codename = release["VERSION_CODENAME"].strip('"')
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    mirror = next(line.split()[0] for line in targets if line.split()[1:] == [codename])
    subprocess.run(["debootstrap", "--variant=minbase", codename, str(folder), mirror], check=True)
    # Debootstrap has named its mirror there; apt is to look where it does on this machine.
    (folder / "etc/apt/sources.list").unlink()
    shutil.copytree("/etc/apt", folder / "etc/apt", dirs_exist_ok=True, symlinks=True)
    shutil.copytree("/usr/share/keyrings", folder / "usr/share/keyrings", dirs_exist_ok=True)
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", folder / "etc" / name)
    install = f"apt-get update -q && apt-get install -q --yes --no-install-recommends {' '.join(packages)}"
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--root={folder}"]
    subprocess.run(
        [*argv, "sh", "-c", f"mount -t proc proc /proc; {install}"],
        check=True,
        env=_ENVIRONMENT,
    )
