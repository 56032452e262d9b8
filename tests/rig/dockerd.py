"""A real Docker Engine of our own, with stand-in GPUs; nothing shared with another engine but the kernel."""

import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path

import docker
from docker.errors import APIError

from tests.rig import leftovers
from tests.rig.gpus import FOUR_GPUS, Gpu, cdi_spec
from tests.rig.nvidia_hook import HookSettings
from tests.rig.parts import Folder, MissingError, find_program, spawn, stop, sweep, wait_until

_KIND = "docker"
_HOW = "apt-get install docker.io"
# A folder with another release's dockerd, containerd, containerd-shim-runc-v2 and docker-proxy, to be used
# instead of the machine's. It is told of its GPUs by CDI, too.
_OTHER = os.environ.get("USANCE_RIG_DOCKER", "")


class Network(StrEnum):
    NONE = "none"
    """No bridge and no packet filter rules: containers have no network."""

    PRIVATE = "private"
    """Bridges and rules, in a network namespace that the engine has to itself and that goes with it."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    network: Network = Network.NONE
    nvidia_is_default_runtime: bool = False
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HookCall:
    """What the stand-in hook did for one container."""

    container_id: str
    uuids: tuple[str, ...]
    error: str


class Engine:
    """A running engine. `base_url` is what DOCKER_HOST and docker-py take."""

    def __init__(self, options: EngineOptions) -> None:
        if os.geteuid() != 0:
            raise MissingError("root's rights", "run the tests as root")
        sweep(_KIND, leftovers.remove)
        self._folder = Folder(_KIND)
        leftovers.note_host(self.path)
        self.gpus: tuple[Gpu, ...] = ()
        self.base_url = f"unix://{self.path}/docker.sock"
        self._state = self.path / "state"
        self._state.mkdir()
        self._cdi = self.path / "cdi"
        self._cdi.mkdir()
        self.set_gpus(FOUR_GPUS)
        self.set_hook(HookSettings())
        try:
            self._start(options)
        except BaseException:
            leftovers.remove(self.path)
            self._folder.release()
            raise

    @property
    def path(self) -> Path:
        return self._folder.path

    @property
    def cgroup_parent(self) -> str:
        """The cgroup that all our containers are in."""
        return f"/{self.path.name}"

    def set_gpus(self, gpus: Sequence[Gpu]) -> None:
        """From the next container on, the host has these."""
        self.gpus = tuple(gpus)
        (self._state / "gpus.json").write_text(json.dumps([asdict(gpu) for gpu in gpus]))
        if _OTHER:
            # Renamed into its place: the engine watches the folder.
            fresh = self._cdi / "fresh"
            nothing = self._state / "nothing"
            nothing.touch()
            fresh.write_text(json.dumps(cdi_spec(gpus, str(nothing))))
            fresh.rename(self._cdi / "nvidia.json")

    @property
    def has_cdi(self) -> bool:
        return bool(_OTHER)

    def set_hook(self, settings: HookSettings) -> None:
        """From the next container on, the seller's toolkit is set so."""
        (self._state / "hook.json").write_text(json.dumps(asdict(settings)))

    def hook_calls(self) -> list[HookCall]:
        path = self._state / "hook.jsonl"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [
            HookCall(container_id=call["container_id"], uuids=tuple(call["uuids"]), error=call["error"])
            for call in calls
        ]

    def answers(self) -> bool:
        """Whether the engine lives. (docker-py leaves its socket open where this fails.)"""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(f"{self.path}/docker.sock")
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in connection.recv(64)
            except OSError:
                return False

    @contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        client = docker.DockerClient(base_url=self.base_url, timeout=60)
        try:
            yield client
        finally:
            client.close()

    def in_network(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` in the engine's network namespace."""
        return ["nsenter", f"--net=/proc/{self._dockerd.pid}/ns/net", *argv]

    def touch(self, container_id: str, path: str) -> None:
        """Make a file in a running container, by the kernel alone: the engine may be about to come back."""
        with self.client() as client:
            pid = client.api.inspect_container(container_id)["State"]["Pid"]
        os.close(os.open(f"/proc/{pid}/root{path}", os.O_CREAT | os.O_WRONLY))

    def remove_containers(self) -> None:
        with self.client() as client:
            for container in client.api.containers(all=True, quiet=True):
                try:
                    client.api.remove_container(container["Id"], force=True, v=True)
                except APIError as error:
                    if error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                        raise  # those two say that somebody else removes it, or just did

    def stop(self) -> None:
        if self.answers():  # what a dead engine leaves is taken away all the same, only not in order
            self.remove_containers()
        stop(self._dockerd)
        stop(self._containerd)
        leftovers.remove(self.path)
        self._folder.release()

    def _start(self, options: EngineOptions) -> None:
        programs = self._programs_folder()
        dockerd = find_program("dockerd", how=_HOW, folders=_folders())
        containerd_socket = self.path / "containerd.sock"
        env = {
            **os.environ,
            "PATH": ":".join([str(programs), *map(str, _folders()), os.environ["PATH"], "/usr/sbin:/sbin"]),
            "USANCE_RIG_STATE": str(self._state),
            "USANCE_RIG_HOOK": str(programs / "nvidia-container-runtime-hook"),
        }
        for name in [name for name in env if name.startswith(("DOCKER_", "NOTIFY_SOCKET"))]:
            del env[name]
        self._containerd = spawn(
            [*_namespace(options.network), *self._containerd_command(containerd_socket)],
            log=self.path / "containerd.log",
            env=env,
        )
        wait_until(containerd_socket.exists, "containerd listens")
        (self.path / "dockerd.json").write_text("{}")  # else /etc/docker/daemon.json is read
        self._launch = lambda: spawn(
            [
                "nsenter",
                f"--net=/proc/{self._containerd.pid}/ns/net",
                str(dockerd),
                *self._dockerd_flags(options, containerd_socket, programs),
            ],
            log=self.path / "dockerd.log",
            env=env,
        )
        self._come_up()

    def _come_up(self) -> None:
        self._dockerd = self._launch()
        wait_until(self._is_up, f"the engine answers; see {self.path}/dockerd.log", deadline_s=40)

    def set_live_restore(self, *, on: bool) -> None:
        """Are containers to outlive dockerd, from now on?"""
        (self.path / "dockerd.json").write_text(json.dumps({"live-restore": on}))
        os.kill(self._dockerd.pid, signal.SIGHUP)
        with self.client() as client:
            wait_until(lambda: client.info()["LiveRestoreEnabled"] is on, "the engine has read its settings")

    def restart(self, number: signal.Signals, settings: Mapping[str, object] | None = None) -> None:
        """End dockerd by a signal, and start it again, with another daemon.json if one is given."""
        if settings is not None:
            (self.path / "dockerd.json").write_text(json.dumps(settings))
        os.kill(self._dockerd.pid, number)
        self._dockerd.wait(60)
        self._come_up()

    def _programs_folder(self) -> Path:
        """What dockerd finds first on its PATH: the stand-ins."""
        folder = self.path / "bin"
        folder.mkdir()
        for name, script in (
            ("nvidia-container-runtime-hook", "nvidia_hook.py"),
            ("nvidia-container-runtime", "nvidia_runtime.py"),
        ):
            command = shlex.join([sys.executable, "-I", str(Path(__file__).parent / script)])
            (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (folder / name).chmod(0o755)
        return folder

    def _containerd_command(self, socket: Path) -> list[str]:
        """Our own containerd: dockerd by itself would take the system's where that runs.

        When we are killed, both get SIGTERM at once, but dockerd needs containerd to end its containers. The
        shell around containerd passes the signal on only when dockerd is gone.
        """
        config = self.path / "containerd.toml"
        config.write_text(
            f"version = 2\nroot = '{self.path}/containerd-root'\nstate = '{self.path}/containerd-state'\n"
            f"disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{socket}'\n"
        )
        containerd = find_program("containerd", how=_HOW, folders=_folders())
        pid_file = shlex.quote(str(self.path / "docker.pid"))
        script = (
            f"{shlex.join([str(containerd), '--config', str(config)])} & child=$!\n"
            f"dockerd_runs() {{ kill -0 $(cat {pid_file}) 2>/dev/null; }}\n"
            "trap 'while dockerd_runs; do sleep 0.05; done; kill $child' TERM\n"
            "wait $child; wait $child"
        )
        return ["sh", "-c", script]

    def _dockerd_flags(self, options: EngineOptions, containerd: Path, programs: Path) -> list[str]:
        paths = {
            "config-file": self.path / "dockerd.json",
            "data-root": self.path / "data",
            "exec-root": self.path / "exec",
            "pidfile": self.path / "docker.pid",
            "containerd": containerd,
            "host": self.base_url,
        }
        flags = [f"--{name}={path}" for name, path in paths.items()]
        flags += [
            f"--containerd-namespace={self.path.name}",
            f"--containerd-plugins-namespace={self.path.name}-p",
        ]
        flags += [f"--cgroup-parent={self.cgroup_parent}", "--exec-opt=native.cgroupdriver=cgroupfs"]
        flags += ["--shutdown-timeout=2", "--userland-proxy=false", "--ip6tables=false"]
        flags += [f"--add-runtime=nvidia={programs}/nvidia-container-runtime"]
        if _OTHER:
            flags += [f"--cdi-spec-dir={self._cdi}"]
        if options.network is Network.NONE:
            flags += ["--bridge=none", "--iptables=false"]
        if options.nvidia_is_default_runtime:
            flags += ["--default-runtime=nvidia"]
        return [*flags, *options.flags]

    def _is_up(self) -> bool:
        for process, log in ((self._containerd, "containerd.log"), (self._dockerd, "dockerd.log")):
            if process.poll() is not None:
                raise RuntimeError(f"it ended at once:\n{(self.path / log).read_text()[-4000:]}")
        return self.answers()


@contextmanager
def running_engine(options: EngineOptions | None = None) -> Iterator[Engine]:
    """An engine for the length of a block; raises parts.MissingError where it cannot run."""
    engine = Engine(options or EngineOptions())
    try:
        yield engine
    finally:
        engine.stop()


def _folders() -> list[Path]:
    return [Path(_OTHER)] if _OTHER else []


def _namespace(network: Network) -> list[str]:
    if network is Network.NONE:
        return []
    return ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
