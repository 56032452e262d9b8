"""Stand-in for NVIDIA's container hook: gives a container GPUs as the real one does, without a GPU.

runc runs it before the container's first process, with the container's OCI state on stdin. It reads from the
container's configuration which GPUs are asked for, as the real hook does, weaknesses included; then it makes
one device node for each of them in the container's /dev and allows it in the container's device cgroup; for a
slice (MIG) that of its GPU, which opens nothing by itself, and that of the capability which opens the slice.
`/dev/rig-gpus` has a file for each UUID. Every call leaves one JSON line in `hook.jsonl`.

A program of its own: it imports nothing but the standard library, because runc starts it outside our
environment. Its folder, `USANCE_RIG_STATE`, holds `gpus.json` and `hook.json` (see HookSettings).
"""

import json
import os
import stat
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

NVIDIA_MAJOR = 195
CAPS_MAJOR = 509


@dataclass(frozen=True, kw_only=True)
class HookSettings:
    """What a seller's toolkit may be set to, and faults. The defaults are those of a fresh installation."""

    accept_envvar_when_unprivileged: bool = True
    swarm_resource: str = ""  # a variable that goes before NVIDIA_VISIBLE_DEVICES
    fail: str = ""  # refuse every container, with this message
    delay_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class Grant:
    uuids: tuple[str, ...] = ()
    error: str = ""


def grant(
    env: dict[str, str], *, privileged: bool, settings: HookSettings, inventory: dict[str, int]
) -> Grant:
    """The GPUs that a container with this environment gets."""
    if settings.fail:
        return Grant(error=settings.fail)
    wanted = env.get("NVIDIA_VISIBLE_DEVICES")
    if settings.swarm_resource in env:
        wanted = env[settings.swarm_resource]
    if wanted is None:
        # An image from before the variable existed is taken to want everything.
        is_legacy = "CUDA_VERSION" in env and "NVIDIA_REQUIRE_CUDA" not in env
        wanted = "all" if is_legacy else "void"
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if not names or {"void", "none"} & set(names):
        return Grant()
    if not privileged and not settings.accept_envvar_when_unprivileged:
        return Grant()  # as today's toolkit: a line in a log, and the container starts without
    if "all" in names:
        return Grant(uuids=tuple(inventory))
    by_name = {
        **{uuid: uuid for uuid in inventory},
        **{str(minor): uuid for uuid, minor in inventory.items()},
    }
    for name in names:
        if name not in by_name:
            return Grant(error=f"unknown device: {name}")
    return Grant(uuids=tuple(by_name[name] for name in names))


def main() -> int:
    folder = Path(os.environ["USANCE_RIG_STATE"])
    state = json.load(sys.stdin)
    bundle = Path(state["bundle"])
    spec = json.loads((bundle / "config.json").read_text())
    devices = json.loads((folder / "gpus.json").read_text())
    inventory = {gpu["uuid"]: gpu["minor"] for gpu in devices}
    caps = {gpu["uuid"]: gpu["cap"] for gpu in devices if gpu["cap"] is not None}
    settings = HookSettings(**json.loads((folder / "hook.json").read_text()))
    env = dict(line.split("=", 1) for line in spec["process"].get("env") or [] if "=" in line)
    bounding = (spec["process"].get("capabilities") or {}).get("bounding") or []
    granted = grant(env, privileged="CAP_SYS_ADMIN" in bounding, settings=settings, inventory=inventory)
    time.sleep(settings.delay_ms / 1000)
    if granted.uuids:
        # The hook runs before the container's root becomes "/", so we reach it from the host's side.
        inside = Path(f"/proc/{state['pid']}/root") / (bundle / spec["root"]["path"]).relative_to("/") / "dev"
        for uuid in granted.uuids:
            _give(state["pid"], inside / f"nvidia{inventory[uuid]}", NVIDIA_MAJOR, inventory[uuid])
            if uuid in caps:
                _give(state["pid"], inside / f"nvidia-caps/nvidia-cap{caps[uuid]}", CAPS_MAJOR, caps[uuid])
        (inside / "rig-gpus").mkdir()
        for uuid in granted.uuids:
            (inside / "rig-gpus" / uuid).touch()
    with (folder / "hook.jsonl").open("a") as calls:
        calls.write(json.dumps({"container_id": state["id"], **asdict(granted)}) + "\n")
    if granted.error:
        print(f"nvidia-container-cli: device error: {granted.error}", file=sys.stderr)
        return 1
    return 0


def _give(pid: int, path: Path, major: int, minor: int) -> None:
    path.parent.mkdir(exist_ok=True)
    if not path.exists():  # two slices of one GPU
        os.mknod(path, stat.S_IFCHR, os.makedev(major, minor))
        path.chmod(0o666)
    _allow(pid, major, minor)


def _allow(pid: int, major: int, minor: int) -> None:
    """Only cgroup v1 can be told so by a file; on v2 device access is a program that we leave alone."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "devices" in controllers.split(","):
            allow = Path(f"/sys/fs/cgroup/devices{path}/devices.allow")
            allow.write_text(f"c {major}:{minor} rw")


if __name__ == "__main__":
    sys.exit(main())
