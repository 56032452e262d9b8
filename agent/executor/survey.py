"""Asks the container engine and the toolkit what they are, for the check-up. Changes nothing."""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from agent.domain.facts import EngineFacts, ToolkitFacts

TOOLKIT_CONFIG = Path("/etc/nvidia-container-runtime/config.toml")
_WAIT_S = 10
# What the engine says that it can hold a container to; what it does not speak of, it can.
_LIMITS = {
    "MemoryLimit": "memory",
    "SwapLimit": "swap",
    "PidsLimit": "processes",
    "CpuCfsQuota": "processor time",
}
_VERSION = re.compile(r"\d+\.\d+\.\d+[^\s,]*")


def engine_facts(docker_host: str) -> EngineFacts:
    """By its socket alone: its own program need not be here."""
    try:
        version = _ask(docker_host, "/version")
        info = _ask(docker_host, "/info")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return EngineFacts(
            address=docker_host, error=f"no container engine answers at {docker_host}: {error}"
        )
    parts = {part["Name"].lower(): str(part["Version"]) for part in version.get("Components") or ()}
    free = None
    with contextlib.suppress(OSError, KeyError):
        free = shutil.disk_usage(info["DockerRootDir"]).free
    return EngineFacts(
        address=docker_host,
        version=str(version.get("Version", "")),
        runc_version=parts.get("runc", ""),
        default_runtime=str(info.get("DefaultRuntime", "runc")),
        security=tuple(info.get("SecurityOptions") or ()),
        live_restore=bool(info.get("LiveRestoreEnabled")),
        cgroup_driver=str(info.get("CgroupDriver", "")),
        devices=tuple(
            device["ID"] for device in info.get("DiscoveredDevices") or () if device.get("Source") == "cdi"
        ),
        disk_free_bytes=free,
        limits_missing=tuple(word for name, word in _LIMITS.items() if info.get(name) is False),
    )


def toolkit_facts(config: Path = TOOLKIT_CONFIG) -> ToolkitFacts:
    told: dict[str, Any] = {}
    error_text = ""
    try:
        told = tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass  # as it is when nobody has changed anything
    except (OSError, ValueError) as error:
        error_text = f"{config} can't be read: {error}"
    links = Path("/dev/char")
    return ToolkitFacts(
        version=_version(["nvidia-ctk", "--version"]),
        cli_version=_version(["nvidia-container-cli", "--version"]),
        config_path=str(config),
        config_error=error_text,
        swarm_resource=str(told.get("swarm-resource", "")),
        takes_environment=bool(told.get("accept-nvidia-visible-devices-envvar-when-unprivileged", True)),
        has_char_links=links.is_dir() and any(name.startswith("195:") for name in os.listdir(links)),  # noqa: PTH208
    )


def _version(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_WAIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = _VERSION.search(done.stdout)
    return found.group() if found else ""


def _ask(docker_host: str, path: str) -> dict[str, Any]:
    connection = _Connection(docker_host.removeprefix("unix://"))
    try:
        connection.request("GET", path)
        content = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return content if isinstance(content, dict) else {}


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=_WAIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_WAIT_S)
        self.sock.connect(self._path)
