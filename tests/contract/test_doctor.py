"""A machine is broken on purpose, in many ways: `usance-agent doctor` finds each and names the remedy.

The faults are real: an engine that is set wrong, sockets on which nobody or nothing useful answers, the
driver's stand-in with a broken card, file systems that are full or read-only, certificates out of their time.
What belongs to the whole machine, such as /etc, is changed in a mount namespace of the command's own.
"""

import asyncio
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from agent.domain.token import parse
from agent.link import enroll, keys
from tests.rig.dockerd import Engine, EngineOptions, Network, running_engine
from tests.rig.fixtures import parts_needed
from tests.rig.gpus import FOUR_GPUS
from tests.rig.nvidia_hook import HookSettings
from tests.rig.nvml.build import NvmlStub
from tests.rig.nvml.state import NvmlState
from tests.rig.outside import world_around
from tests.rig.parts import find_program, free_port
from tests.support.agent_process import REPOSITORY
from tests.support.fake_coordinator import HOST_ID, FakeCoordinator
from tests.support.through import answered_inside

pytestmark = [pytest.mark.docker, pytest.mark.nvml, pytest.mark.slow]

GPU, OTHER_GPU = FOUR_GPUS[0].uuid, FOUR_GPUS[1].uuid
TRAPS = (
    'swarm-resource = "DOCKER_RESOURCE_GPU"\naccept-nvidia-visible-devices-envvar-when-unprivileged = false\n'
)
GOOD, DOUBT, BAD = "good", "doubt", "bad"
# Of the disk that stands for the machine's: more than the agent wants to have free, and not all written.
DISK_BYTES = 3 << 30
# A clock that somebody keeps right, or nobody does: what a program asks of the kernel's is answered here.
CLOCK = '#include <stdlib.h>\nint adjtimex(void *b) { (void)b; return atoi(getenv("USANCE_CLOCK")); }\n'


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is other than on one that is well."""

    docker_host: str = ""
    prices: str = '"*" = "0.50"'
    more: str = ""
    toolkit: str = "1.20.0"
    # The kernel's half of the driver.
    module: str = "550.54.15"
    has_driver: bool = True
    config: str = ""
    clock: int = 0
    # Changes to what enrolment wrote, or None where it never was.
    identity: Mapping[str, str] | None = field(default_factory=dict)
    # Shell commands in the mount namespace; the state folder is "$STATE", its disk "$DISK".
    before: str = ""
    path: str = ""


class Bench:
    """Breaks machines and has the doctor look at them."""

    def __init__(self, folder: Path, engine: Engine, nvml: NvmlStub, identity: Mapping[str, str]) -> None:
        self.folder, self.engine, self.nvml, self.identity = folder, engine, nvml, identity
        self._mkfs = find_program("mkfs.ext4", how="apt-get install e2fsprogs")
        self._clock = folder / "clock.so"
        compiler = [str(find_program("gcc", how="apt-get install gcc libc6-dev")), "-shared", "-fPIC"]
        subprocess.run([*compiler, "-x", "c", "-", "-o", self._clock], input=CLOCK, text=True, check=True)

    def begin(self, name: str, machine: Machine) -> "subprocess.Popen[str]":
        folder = self.folder / name
        disk, etc = folder / "disk", folder / "etc"
        for made in (disk, etc / "nvidia-container-runtime", folder / "bin"):
            made.mkdir(parents=True)
        image = folder / "disk.img"
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run([self._mkfs, "-q", "-E", "nodiscard,lazy_itable_init=1", image], check=True)
        if machine.config:
            (etc / "nvidia-container-runtime/config.toml").write_text(machine.config)
        for program in ("nvidia-ctk", "nvidia-container-cli") if machine.toolkit else ():
            _script(folder / "bin" / program, f"echo cli-version: {machine.toolkit}")
        (folder / "agent.toml").write_text(
            f'state_dir = "{disk}/state"\n'
            f'docker_host = "{machine.docker_host or self.engine.base_url}"\n'
            f"{machine.more}\n[prices]\n{machine.prices}\n"
        )
        identity = folder / "identity.json"
        if machine.identity is not None:
            identity.write_text(json.dumps({**self.identity, **machine.identity}))
        steps = [
            f"mount -o loop {image} {disk}",
            f"mount -t overlay overlay -o lowerdir={etc}:/etc /etc",
            "mount -t tmpfs none /run",
            "mount -t tmpfs none /proc/driver && mkdir /proc/driver/nvidia",
            f"echo NVRM: x86_64 Kernel Module  {machine.module} x > /proc/driver/nvidia/version",
            f"DISK={disk} STATE={disk}/state; mkdir -m 700 $STATE",
            f"test ! -e {identity} || cp {identity} $STATE/identity.json",
            machine.before or "true",
            f"exec {sys.executable} -m agent doctor --json --config {folder}/agent.toml",
        ]
        env = self.nvml.env() if machine.has_driver else dict(os.environ)
        env |= {
            "PATH": f"{machine.path}:{folder}/bin:{env['PATH']}",
            "LD_PRELOAD": str(self._clock),
            "USANCE_CLOCK": str(machine.clock),
        }
        inside = self.engine.in_network(["unshare", "--mount", "sh", "-ec", "\n".join(steps)])
        return subprocess.Popen(
            inside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=REPOSITORY
        )

    def end(self, process: "subprocess.Popen[str]") -> dict[str, dict[str, str]]:
        out, err = process.communicate(timeout=60)
        assert out.startswith("{"), out + err
        found = {one["check"]: one for one in json.loads(out)["findings"]}
        is_bad = any(one["verdict"] == BAD for one in found.values())
        assert process.returncode == (1 if is_bad else 0), err
        assert "Traceback" not in err
        return found


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


class _OldEngine(BaseHTTPRequestHandler):
    """An engine of long ago, on a kernel that lacks a limit, which can do nothing but tell of itself."""

    def do_GET(self) -> None:
        told: dict[str, Any] = {"message": "not here"}
        if self.path.endswith("/version"):
            told = {
                "Version": "24.0.7",
                "ApiVersion": "1.43",
                "Components": [{"Name": "runc", "Version": "1.1.11"}],
            }
        elif self.path.endswith("/info"):
            told = {"SecurityOptions": ["name=seccomp,profile=unconfined"], "PidsLimit": False, "ID": "old"}
        raw = json.dumps(told).encode()
        self.send_response(404 if "message" in told else 200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_POST = do_DELETE = do_GET  # noqa: N815

    def address_string(self) -> str:
        return "engine"

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def old_engine(path: Path) -> Iterator[str]:
    with socketserver.ThreadingUnixStreamServer(str(path), _OldEngine) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def dumb_engine(path: Path) -> Iterator[str]:
    """Takes calls, and never answers."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield f"unix://{path}"


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, _nvml_library: Path
) -> dict[str, dict[str, dict[str, str]]]:
    """What the doctor finds, check by check, on each machine."""
    folder = tmp_path_factory.mktemp("doctor")
    (folder / "enrolled").mkdir()
    nvml = NvmlStub(library=_nvml_library, state=NvmlState(folder / "nvml"))
    nvml.state.add_gpu(FOUR_GPUS[0])
    nvml.state.add_gpu(FOUR_GPUS[1])

    options = EngineOptions(network=Network.PRIVATE, nvidia_is_default_runtime=True)
    with parts_needed(), running_engine(options) as engine, _coordinator() as (coordinator, do):
        identity = do(enroll.enroll(folder / "enrolled", parse(coordinator.token)))
        enrolled = json.loads((folder / "enrolled/identity.json").read_text())

        def dated(begins_h: int, ends_h: int) -> dict[str, str]:
            asked = keys.signing_request(identity.key_pem)
            signed = coordinator.authority.sign(asked, HOST_ID, (begins_h, ends_h))
            return {"certificate_pem": signed.decode()}

        namespace = Path(engine.in_network([])[1].removeprefix("--net="))
        with world_around(engine), answered_inside(namespace, {identity.hosts: identity.hosts}):
            return _all(Bench(folder, engine, nvml, enrolled), dated)


@contextmanager
def _coordinator() -> Iterator[tuple[FakeCoordinator, Callable[[Coroutine[Any, Any, Any]], Any]]]:
    """In a thread of its own, for the engine goes with the thread that starts it; and what is done there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def do(what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, loop).result()

    async def made() -> FakeCoordinator:
        return FakeCoordinator()

    coordinator = do(made())
    try:
        do(coordinator.start())
        yield coordinator, do
    finally:
        do(coordinator.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _all(bench: Bench, dated: Any) -> dict[str, dict[str, dict[str, str]]]:
    found: dict[str, dict[str, dict[str, str]]] = {}

    def look(name: str, machine: Machine) -> None:
        found[name] = bench.end(bench.begin(name, machine))

    folder, engine, nvml = bench.folder, bench.engine, bench.nvml
    networked = 'network = "internet"\nnetwork_pool = "10.213.0.0/24"'
    with ExitStack() as stack:
        dumb = stack.enter_context(dumb_engine(folder / "dumb.sock"))
        old = stack.enter_context(old_engine(folder / "old.sock"))
        # It waits long for an answer: the others come meanwhile.
        in_memory = "cp -r $STATE /run/was; mount -t tmpfs -o mode=700 none $STATE; mv /run/was/* $STATE"
        waiting = bench.begin(
            "dumb", Machine(docker_host=dumb, identity=dated(-200, -1), clock=5, before=in_memory)
        )
        engine.set_live_restore(on=True)
        look("well", Machine(more=networked))
        forgetful = folder / "forgetful"
        forgetful.mkdir()
        _script(forgetful / "iptables-restore", "cat > /dev/null")
        nvml.state.set_gpu(0, compute_processes=f"{os.getpid()}:1000")
        nvml.state.fail_gpu(1)
        engine.set_hook(HookSettings(fail="the driver is broken"))
        (folder / "all.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
        engine.restart(signal.SIGTERM, {"seccomp-profile": f"{folder}/all.json"})
        look(
            "wrongly-set",
            Machine(
                more=networked,
                path=str(forgetful),
                toolkit="1.17.7",
                module="560.1.2",
                config=TRAPS,
                identity={**dated(-200, 2), "hosts": f"127.0.0.1:{free_port()}"},
                before="fallocate -l 2G $DISK/filler",
            ),
        )
        look(
            "bare",
            Machine(
                docker_host=f"unix://{folder}/none.sock",
                has_driver=False,
                prices="",
                identity=None,
                before="chmod 755 $STATE",
            ),
        )
        nvml.state.set_system(count=0)
        look(
            "old",
            Machine(
                docker_host=old,
                toolkit="",
                identity=dated(5, 30),
                before="mount -o remount,ro $DISK",
            ),
        )
        look("misspelt", Machine(more='reegion = "x"'))
        found["dumb"] = bench.end(waiting)
    with engine.client() as client:
        assert client.containers.list(all=True) == client.images.list(all=True) == []
        assert [network["Name"] for network in client.api.networks() if "usance" in network["Name"]] == []
    return found


def test_a_machine_that_is_well_is_told_so(told):
    """All but what the rig can't have or change: an engine of a distribution, and how that was started."""
    found = told["well"]
    doubted = {check: one for check, one in found.items() if one["verdict"] != GOOD}
    assert doubted.keys() <= {"engine", "runc", "user namespaces", "CDI", "default runtime", "engine's disk"}
    assert {
        *("settings", "driver", f"GPU {GPU}", f"GPU {OTHER_GPU}", "seccomp", "limits", "live-restore"),
        *("toolkit", f"start with GPU {GPU}", f"start with GPU {OTHER_GPU}", "network", "clock"),
        *("state folder", "certificate", "coordinator"),
    } <= found.keys() - doubted.keys()


FAULTS = [
    ("wrongly-set", "driver", BAD, "560.1.2", "reboot"),
    ("wrongly-set", f"GPU {GPU}", DOUBT, "process", "end what uses it"),
    ("wrongly-set", "GPUs", DOUBT, "GPU 1: GPU is lost", "--gpu-reset"),
    ("wrongly-set", "seccomp", DOUBT, "all.json", "seccomp-profile"),
    ("wrongly-set", "user namespaces", DOUBT, "root here", "userns-remap"),
    ("wrongly-set", "live-restore", DOUBT, "off", '"live-restore": true'),
    ("wrongly-set", "default runtime", DOUBT, "nvidia", "default-runtime"),
    (
        "wrongly-set",
        "toolkit",
        BAD,
        "1.17.7: an image can take over the machine",
        "upgrade nvidia-container-toolkit",
    ),
    ("wrongly-set", "CDI", DOUBT, "by its name", "nvidia-ctk cdi generate"),
    ("wrongly-set", "swarm-resource", BAD, "DOCKER_RESOURCE_GPU", "config.toml"),
    ("wrongly-set", "toolkit's config", BAD, "without the GPUs", "accept-nvidia-visible-devices"),
    ("wrongly-set", f"start with GPU {GPU}", BAD, "the driver is broken", "nvidia-ctk cdi list"),
    ("wrongly-set", "network", BAD, "not kept in its network", "firewalld"),
    ("wrongly-set", "state folder", BAD, "MiB are free", "free at least 2 GiB"),
    ("wrongly-set", "certificate", DOUBT, "and not renewed", "does it run"),
    ("wrongly-set", "coordinator", BAD, "", "can this machine reach 127.0.0.1:"),
    ("bare", "settings", BAD, "no GPU has a price", "usance-agent price"),
    ("bare", "driver", BAD, "not installed", "apt-get install nvidia-driver"),
    ("bare", "engine", BAD, "none.sock", "systemctl start docker"),
    ("bare", "state folder", BAD, "can read the host's key", "chmod 700"),
    ("bare", "market", BAD, "no host yet", "usance-agent enroll"),
    ("old", "driver", BAD, "no GPU", "lspci"),
    ("old", "engine", BAD, "24.0.7", "28.2"),
    ("old", "runc", BAD, "1.1.11: containers can break out", "upgrade runc"),
    ("old", "seccomp", BAD, "anything of the kernel", "seccomp-profile"),
    ("old", "limits", BAD, "processes", "cgroups"),
    ("old", "clock", BAD, "it is behind", "set-ntp"),
    ("old", "state folder", BAD, "can't be written", "remount"),
    ("misspelt", "settings", BAD, "line 3: ", "mend the line"),
    ("dumb", "state folder", BAD, "tmpfs", "move state_dir"),
    ("dumb", "engine", BAD, "timed out", "systemctl start docker"),
    ("dumb", "clock", DOUBT, "nothing keeps it right", "set-ntp"),
    ("dumb", "certificate", BAD, "it is over", "new token"),
]


@pytest.mark.parametrize(("machine", "check", "verdict", "found", "remedy"), FAULTS)
def test_a_fault_is_found_and_its_remedy_named(told, machine, check, verdict, found, remedy):
    one = told[machine][check]
    assert one["verdict"] == verdict
    assert found in one["found"]
    assert remedy in one["remedy"]
