"""Takes the agent off this machine, so that nothing of it is left."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from agent import app, status
from agent.domain.gpu import Inventory
from agent.executor.ports import ExecutorError
from agent.link import identity as identities
from agent.link import standing as asking
from agent.settings import DEFAULT_PATH, ExecutorKind, Settings
from runtime.clock import SystemClock

UNIT = "usance-agent.service"
# A package's are the package's to remove.
_UNITS, _UNITS_OF_PACKAGES = Path("/etc/systemd/system"), Path("/usr/lib/systemd/system")
_FOLDERS = ("attempts", "runs")
_FILES = (
    *("identity.json", "key.pem", "cert.pem", "authority.pem"),
    *("gpus.json", "images.json", "prices.json", "agent.sock", "lock"),
)
_RUNS_SYSTEMD = Path("/run/systemd/system")
_GO_MS = 60_000
_LOOK_MS = 100
_WAIT_S = 90

Say = Callable[[str], None]


class InTheWayError(Exception):
    """It can't be taken off yet; the message says why."""


def uninstall(settings: Settings, *, end_jobs: bool, keep_state: bool = False, say: Say) -> None:
    """Raises InTheWayError, and then nothing was changed but that no new jobs come."""
    _say_no_more_jobs(settings.state_dir, say)
    live = [attempt for attempt in status.read(settings.state_dir).attempts if attempt.is_live]
    if live and not end_jobs:
        raise InTheWayError(
            f"{len(live)} jobs run here: usance-agent drain waits for them; --end-jobs ends them at your cost"
        )
    _stop_agent(settings.state_dir, say, keep_state=keep_state)
    lock = app.hold_state_dir(settings.state_dir)
    try:
        asyncio.run(_clear(settings, say))
    except ExecutorError as error:
        if not keep_state:
            raise InTheWayError(f"what the engine has of ours can't be removed: {error}") from error
        say(f"what the engine has of ours stays: {error}")
    finally:
        os.close(lock)
    if keep_state:
        return
    _remove_state(settings.state_dir, say)
    if settings.state_dir == Settings().state_dir:
        # What the package has put there; a second agent with a folder of its own has neither.
        for path in (DEFAULT_PATH, _UNITS / UNIT):
            _remove(path, say)


def _say_no_more_jobs(state_dir: Path, say: Say) -> None:
    identity = identities.load(state_dir)
    if identity is None:
        return
    try:
        asyncio.run(asking.wish(identity, asking.Wish.PAUSE))
    except asking.UnreachedError as error:
        say(f"the coordinator was not told: {error}")


def _stop_agent(state_dir: Path, say: Say, *, keep_state: bool) -> None:
    if _RUNS_SYSTEMD.exists() and any((folder / UNIT).exists() for folder in (_UNITS, _UNITS_OF_PACKAGES)):
        # Of a package that is removed the unit stays enabled, for when it is installed again.
        does = ["stop"] if keep_state else ["disable", "--now"]
        subprocess.run(["systemctl", *does, UNIT], check=False, timeout=_WAIT_S)
    pid = status.agent_pid(state_dir)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    clock = SystemClock()

    async def gone() -> bool:
        until_ms = clock.boot_ms() + _GO_MS
        while status.agent_pid(state_dir) is not None:
            if clock.boot_ms() >= until_ms:
                return False
            await clock.sleep_ms(_LOOK_MS)
        return True

    if not asyncio.run(gone()):
        raise InTheWayError(f"the agent (process {pid}) does not go")
    say("the agent has stopped")


async def _clear(settings: Settings, say: Say) -> None:
    """What runs, and what the engine and the packet filter have of ours."""
    identity = identities.load(settings.state_dir)
    nothing = Inventory(driver_version="", cuda_version="", gpus=())
    host_id = identity.host_id if identity else "host_none"
    executor = app.executor_of(settings, host_id, SystemClock(), nothing)
    try:
        for key in sorted(await executor.held(), key=str):
            await executor.destroy(key)
            say(f"ended and removed {key}")
        if settings.executor is ExecutorKind.DOCKER:
            from agent.executor.docker import DockerExecutor

            assert isinstance(executor, DockerExecutor)
            await executor.leave()
    finally:
        await executor.close()


def _remove_state(folder: Path, say: Say) -> None:
    """What is ours by name; a folder that holds something else, by a slip of the settings, stays with it."""
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _FILES:
        for path in (folder / name, folder / f"{name}.new"):
            path.unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError:
        say(f"{folder} stays: there is something in it that is not the agent's")
    else:
        say(f"removed {folder}")


def _remove(path: Path, say: Say) -> None:
    if path.exists():
        path.unlink()
        say(f"removed {path}")
