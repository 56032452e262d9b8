"""Machines with addresses of their own: network namespaces on one bridge, and what is done to their lines.

```
 hub (the coordinator's machine) ── bridge ──┬─ veth ── an agent's machine
     └─ veth ── this machine, if asked for   └─ …
```
A namespace lives as long as the process that holds it, and that as long as we: nothing is left behind,
however we end. Where the kernel can't delay packets (`tc netem`), a tunnel between the two machines does it.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from tests.rig.parts import find_program
from tests.support.tunnel import Tunnel, open_tunnel

HUB = "198.18.0.1"
# iptables takes the machine's own lock, whichever namespace it works in.
_FILTER = ("iptables", "-w", "10")


class Machine:
    """A network namespace with one address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", "echo held; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        self._holder.stdout.readline()
        self.run("ip", "link", "set", "lo", "up")
        # Answers may come back another way than questions go.
        for kind in ("all", "default"):
            self.run("sh", "-c", f"echo 0 > /proc/sys/net/ipv4/conf/{kind}/rp_filter")

    @property
    def namespace(self) -> Path:
        return Path(f"/proc/{self._holder.pid}/ns/net")

    @property
    def inside(self) -> tuple[str, ...]:
        """What runs a command here."""
        return ("nsenter", f"--net={self.namespace}")

    @property
    def pid(self) -> int:
        return self._holder.pid

    def run(self, *argv: str) -> None:
        done = subprocess.run([*self.inside, *argv], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)} says: {done.stderr}")

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()


class Wire:
    """The line between one machine and the hub."""

    def __init__(self, hub: Machine, machine: Machine, number: int) -> None:
        self._hub = hub
        self.machine = machine
        self._number = number
        self._tunnel: Tunnel | None = None
        machine.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}",
                    "netns", str(hub.pid))  # fmt: skip
        machine.run("ip", "address", "add", f"{machine.address}/24", "dev", "eth0")
        machine.run("ip", "link", "set", "eth0", "up")
        # The coordinator's machine has another address, by which it calls itself.
        machine.run("ip", "route", "add", "default", "via", hub.address)
        hub.run("ip", "link", "set", f"port{number}", "master", "bridge", "up")

    def cut(self, *, up: bool, down: bool) -> None:
        """Nothing gets out, or in, and nobody is told."""
        if up:
            self._filter("OUTPUT")
        if down:
            self._filter("INPUT")

    def lose(self, percent: int) -> None:
        """Of the packets both ways."""
        for chain in ("INPUT", "OUTPUT"):
            self._filter(chain, "-m", "statistic", "--mode", "random", "--probability", str(percent / 100))

    def delay(self, delay_ms: int) -> str:
        """Each packet comes so much later, each way; by what, is answered."""
        if self.has_netem:
            self.machine.run("tc", "qdisc", "replace", "dev", "eth0", "root", "netem",
                             "delay", f"{2 * delay_ms}ms")  # fmt: skip
            return "netem"
        if self._tunnel is None:
            self._tunnel = open_tunnel(self._hub, self.machine, self._number, delay_ms)
        return "a tunnel: this kernel has no netem"

    @cached_property
    def has_netem(self) -> bool:
        try:
            self.machine.run("tc", "qdisc", "replace", "dev", "eth0", "root", "netem", "delay", "0ms")
        except RuntimeError:
            return False
        return True

    def mend(self) -> None:
        for chain in ("INPUT", "OUTPUT"):
            self.machine.run(*_FILTER, "--flush", chain)
        if self._tunnel is not None:
            self._tunnel.close()
            self._tunnel = None
        if self.has_netem:
            with suppress(RuntimeError):  # there is none
                self.machine.run("tc", "qdisc", "delete", "dev", "eth0", "root")

    def _filter(self, chain: str, *match: str) -> None:
        self.machine.run(*_FILTER, "--append", chain, *match, "--jump", "DROP")


class Net:
    """The hub and the wires to all machines; nothing of it is in our own network, but for a door.

    With one, `here` is our own address as the hub sees it, and `door` the hub's as we see it.
    """

    def __init__(self, names: Sequence[str], *, with_door: bool) -> None:
        # The network for trying out networks; each of us takes four addresses of the second half.
        base = os.getpid() % 16_384 * 4
        self.here, self.door = (f"198.19.{(base + n) >> 8}.{(base + n) & 255}" for n in (1, 2))
        self._device = f"usa{os.getpid()}"
        self.hub = Machine(HUB)
        self.machines = [self.hub]
        self.wires: dict[str, Wire] = {}
        try:
            self._build(names)
            if with_door:
                self._open_door()
        except BaseException:
            self.close()
            raise

    def _build(self, names: Sequence[str]) -> None:
        self.hub.run("ip", "link", "add", "bridge", "type", "bridge")
        self.hub.run("ip", "address", "add", f"{HUB}/24", "dev", "bridge")
        self.hub.run("ip", "link", "set", "bridge", "up")
        for number, name in enumerate(names, 11):
            machine = Machine(f"198.18.0.{number}")
            self.machines.append(machine)
            self.wires[name] = Wire(self.hub, machine, number)

    def _open_door(self) -> None:
        device = self._device
        for argv in (
            ["ip", "link", "add", device, "type", "veth", "peer", "name", "door", "netns", str(self.hub.pid)],
            ["ip", "address", "add", f"{self.here}/30", "dev", device],
            ["ip", "link", "set", device, "up"],
        ):
            subprocess.run(argv, check=True, capture_output=True)
        self.hub.run("ip", "address", "add", f"{self.door}/30", "dev", "door")
        self.hub.run("ip", "link", "set", "door", "up")

    def close(self) -> None:
        # It would go by itself, a moment later.
        subprocess.run(["ip", "link", "delete", self._device], check=False, capture_output=True)
        for machine in self.machines:
            machine.close()


@contextmanager
def joined(names: Sequence[str], *, with_door: bool = False) -> Iterator[Net]:
    """Raises parts.MissingError where the machine lacks something."""
    packages = {"unshare": "util-linux", "setpriv": "util-linux", "ip": "iproute2", "iptables": "iptables"}
    for program, package in packages.items():
        find_program(program, how=f"apt-get install {package}")
    net = Net(names, with_door=with_door)
    try:
        yield net
    finally:
        for wire in net.wires.values():
            wire.mend()
        net.close()
