"""Stands in for systemctl in a root where systemd can't run.

It starts a unit by the unit's own lines (ExecStartPre, ExecStart, User, StateDirectory, Type=notify), stops
what it has started, and enables by the links that systemd would make. It needs nothing but the standard
library, because it is copied into that root. What a unit forbids its program, nobody enforces here.
"""

import os
import pwd
import select
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

UNITS = Path("/usr/lib/systemd/system")
STATE = Path("/run/stand-in")
WANTS = Path("/etc/systemd/system/multi-user.target.wants")
START_S, STOP_S = 60, 60
INACTIVE, FAILED = 3, 1


def main() -> int:
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    verb, units = words[0], [name if "." in name else f"{name}.service" for name in words[1:]]
    return max((act(verb, unit) for unit in units), default=0)


def act(verb: str, unit: str) -> int:
    match verb:
        case "enable":
            WANTS.mkdir(parents=True, exist_ok=True)
            (WANTS / unit).unlink(missing_ok=True)
            (WANTS / unit).symlink_to(UNITS / unit)
            return start(unit) if "--now" in sys.argv else 0
        case "disable":
            (WANTS / unit).unlink(missing_ok=True)
            return stop(unit) if "--now" in sys.argv else 0
        case "start":
            return start(unit)
        case "stop":
            return stop(unit)
        case "restart":
            return stop(unit) or start(unit)
        case "is-active":
            return 0 if pid_of(unit) else INACTIVE
        case "is-enabled":
            enabled = (WANTS / unit).is_symlink()
            print("enabled" if enabled else "disabled")
            return 0 if enabled else FAILED
    raise SystemExit(f"the stand-in knows no {verb}")


def start(unit: str) -> int:
    if pid_of(unit):
        return 0
    told = settings(unit)
    user = pwd.getpwnam(told.get("User", ["root"])[0])
    state = Path("/var/lib", told["StateDirectory"][0])
    state.mkdir(mode=0o700, exist_ok=True)
    os.chown(state, user.pw_uid, user.pw_gid)
    for line in told.get("ExecStartPre", []):
        done = subprocess.run(["sh", "-c", f"exec {line.lstrip('-+')}"], check=False, capture_output=True)
        if done.returncode and "-" not in line[:2]:
            return FAILED
    STATE.mkdir(exist_ok=True)
    address = STATE / f"{unit}.notify"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard, (STATE / f"{unit}.log").open("ab") as log:
        heard.bind(str(address))
        address.chmod(0o666)
        process = subprocess.Popen(
            shlex.split(told["ExecStart"][0]),
            env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(address), "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            umask=0o077,
            cwd="/",
        )
        (STATE / f"{unit}.pid").write_text(str(process.pid))
        return 0 if is_ready(process, heard) else FAILED


def is_ready(process: "subprocess.Popen[bytes]", heard: socket.socket) -> bool:
    ended = os.pidfd_open(process.pid)
    while True:
        found, _, _ = select.select([heard.fileno(), ended], [], [], START_S)
        if heard.fileno() not in found:
            return False
        if b"READY=1" in heard.recv(4_096).split(b"\n"):
            return True


def stop(unit: str) -> int:
    """The main process alone, as KillMode=process says; the coordinator has no other."""
    pid = pid_of(unit)
    if not pid:
        return 0
    ended = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    if not select.select([ended], [], [], STOP_S)[0]:
        os.kill(pid, signal.SIGKILL)
        return FAILED
    (STATE / f"{unit}.pid").unlink()
    return 0


def pid_of(unit: str) -> int:
    """0 where it does not run."""
    try:
        pid = int((STATE / f"{unit}.pid").read_text())
        return 0 if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z" else pid
    except (FileNotFoundError, ProcessLookupError):
        return 0


def settings(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


if __name__ == "__main__":
    sys.exit(main())
