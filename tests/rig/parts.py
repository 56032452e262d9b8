"""What the servers of the rig share: programs, ports, folders that do not outlive us, start and stop."""

import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

# Our folders: short, because a unix socket's path may have 107 bytes, and in one place, so that the next
# run finds what a killed run left.
FOLDER_PREFIX = "usance-rig-"
_LOCK = "owner.lock"

# Below 32768, where Linux begins to give ports to outgoing connections: nobody takes one by chance.
PORTS = range(20_000, 32_000)


class MissingError(Exception):
    """The machine lacks something: `what`, and `how` to get it."""

    def __init__(self, what: str, how: str) -> None:
        super().__init__(f"{what} is missing: {how}")
        self.what = what
        self.how = how


def find_program(name: str, *, how: str, folders: Iterable[Path] = ()) -> Path:
    """The program of that name in `folders`, on the PATH, or where administrators' programs are."""
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    found = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise MissingError(f"the program {name}", how)
    return Path(found)


@dataclass(frozen=True, kw_only=True)
class User:
    """Whom a server runs as when we are root and it must not be."""

    uid: int
    gid: int

    @property
    def setpriv_options(self) -> list[str]:
        return [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]


class Folder:
    """A folder of our own. Its lock lives as long as we do, so the next run can tell that we were killed."""

    def __init__(self, kind: str) -> None:
        # Not mkdtemp's names: they may hold what is no name for a containerd namespace.
        name = f"{FOLDER_PREFIX}{kind}-{os.urandom(6).hex()}"
        unlocked = Path(tempfile.gettempdir(), f".{name}")
        unlocked.mkdir(mode=0o755)  # servers that must not be root get in
        self._lock = (unlocked / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = unlocked.rename(unlocked.with_name(name))

    def remove(self) -> None:
        shutil.rmtree(self.path)
        self.release()

    def release(self) -> None:
        """Give up the lock of a folder that is gone."""
        self._lock.close()


def sweep(kind: str, remove: Callable[[Path], None]) -> None:
    """Remove the folders of `kind` whose owner is gone; only one of us does it at a time."""
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}{kind}-*")):
        try:
            lock = (path / _LOCK).open("r+")
        except OSError:  # just removed, or another user's
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # owned, or being removed
                continue
            if path.exists():
                remove(path)


def wait_until(condition: Callable[[], bool], what: str, *, deadline_s: float = 20) -> None:
    """Poll until `condition` holds; raise TimeoutError naming `what` when it does not in time."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline_s} s in vain: {what}")
        time.sleep(0.01)


def free_port() -> int:
    """A loopback port nobody listens on. Between this answer and its use another could take it."""
    start = os.getpid() * 7 + time.monotonic_ns() // 1_000
    for offset in range(len(PORTS)):
        port = PORTS[(start + offset) % len(PORTS)]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
        return port
    raise MissingError("a free loopback port", f"stop what listens on ports {PORTS.start} to {PORTS.stop}")


def spawn(
    argv: list[str],
    *,
    log: Path,
    env: dict[str, str] | None = None,
    user: User | None = None,
    dies_with: str = "TERM",
) -> subprocess.Popen[bytes]:
    """Start a server in its own session; it gets the signal `dies_with` when we die, however we die."""
    setpriv = find_program("setpriv", how="apt-get install util-linux")
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(setpriv), *(user.setpriv_options if user else ()), "--pdeathsig", dies_with, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )


def stop(
    process: subprocess.Popen[bytes], *, by: signal.Signals = signal.SIGTERM, deadline_s: float = 20
) -> None:
    """End a server in order; by force when it does not."""
    if process.poll() is None:
        process.send_signal(by)
    try:
        process.wait(deadline_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
