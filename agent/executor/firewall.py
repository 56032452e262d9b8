"""The packet filter's rules for jobs, as `agent.domain.network` decides them: set, watched and proved."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from agent.domain.network import (
    JobNetwork,
    NetworkPlan,
    must_be_refused,
    ours,
    rules,
    rules_removed,
    rules_v6,
)
from agent.executor import probe

_WAIT_S = 30
# Always the same: the host takes no other one for an address that it has just spoken with.
_PROBE_MAC = "02:75:73:61:6e:63"
# A kernel without IPv6 has no filter for it either.
_TABLES = ("iptables", "ip6tables") if Path("/proc/net/if_inet6").exists() else ("iptables",)
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin"


class FirewallError(Exception):
    """The rules can't be set, or are set and don't hold. The message says why, to a person."""


class UnprovenError(FirewallError):
    """Nothing says that the rules fail, nor that they hold: a machine under great load, say."""


class Firewall:
    """Rules of this host's network namespace. `inside` is put before every command, to be in another one."""

    def __init__(self, inside: Sequence[str] = ()) -> None:
        self._inside = tuple(inside)
        # How the rules were listed right after we had set them.
        self._right: list[str] | None = None

    def set(self, jobs: Iterable[JobNetwork]) -> None:
        """Replace our rules by those for these jobs, at once. Raises FirewallError."""
        # First what says nothing of single jobs: a job never has a network without it.
        if "ip6tables" in _TABLES:
            self._restore("ip6tables", rules_v6(listed=self._listed("ip6tables")))
        listed = self._listed("iptables")
        self._restore("iptables", rules(jobs, self._routes(), listed=listed))
        self._right = self._ours()

    def is_as_set(self) -> bool:
        return self._right is not None and self._right == self._ours()

    def remove(self) -> None:
        """Leave nothing of ours; what is not there is success."""
        for table in _TABLES:
            listed = self._listed(table)
            if ours(listed):
                self._restore(table, rules_removed(listed))
        self._right = None

    def prove(self, plan: NetworkPlan, job: JobNetwork) -> None:
        """Try, from the job's own bridge, what must be refused. Raises FirewallError where it is not."""
        addresses = [interface.ip for interface in self._interfaces() if not interface.ip.is_loopback]
        others = [address for address in addresses if address != plan.gateway]
        targets = must_be_refused(plan, job, others, self._routers())
        wrong: dict[str, str] = {}
        # A machine that is very busy may say nothing in time; what was reached is no accident.
        for _ in range(2):
            answers = self._probe(plan, targets)
            wrong = {address: answer for address, answer in answers.items() if answer != probe.REFUSED}
            if not wrong or probe.REACHED in wrong.values():
                break
        if wrong:
            told = ", ".join(f"{address}: {answer}" for address, answer in wrong.items())
            if probe.REACHED in wrong.values():
                raise FirewallError(f"a job is not kept in its network ({told})")
            raise UnprovenError(f"it can't be proved that a job is kept in its network ({told})")

    def taken(self) -> list[IPv4Network]:
        """Networks that this host is in or has a way to."""
        return [*self._routes(), *(interface.network for interface in self._interfaces())]

    def _ours(self) -> list[str]:
        return [line for table in _TABLES for line in ours(self._listed(table))]

    def _listed(self, table: str) -> list[str]:
        return self._run([table, "--wait", "-S"]).splitlines()

    def _restore(self, table: str, text: str) -> None:
        self._run([f"{table}-restore", "--noflush", "--wait"], text)

    def _routes(self) -> list[IPv4Network]:
        """Networks that begin at this host's own door; a default route is none."""
        found = json.loads(self._run(["ip", "-json", "-4", "route", "show", "scope", "link"]) or "[]")
        return [IPv4Network(route["dst"]) for route in found if route["dst"] != "default"]

    def _routers(self) -> list[IPv4Address]:
        found = json.loads(self._run(["ip", "-json", "-4", "route", "show", "default"]) or "[]")
        return [IPv4Address(route["gateway"]) for route in found if "gateway" in route]

    def _interfaces(self) -> list[IPv4Interface]:
        found = json.loads(self._run(["ip", "-json", "-4", "address"]) or "[]")
        return [
            IPv4Interface(f"{address['local']}/{address['prefixlen']}")
            for link in found
            for address in link.get("addr_info", ())
        ]

    def _probe(self, plan: NetworkPlan, targets: Sequence[IPv4Address]) -> dict[str, str]:
        """A process in a network namespace of its own, on the job's bridge. It leaves nothing behind."""
        order = {
            "addresses": [f"{address}/{plan.subnet.prefixlen}" for address in plan.probe_addresses],
            "gateway": str(plan.gateway),
            "targets": [str(target) for target in targets],
        }
        with subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(probe.__file__)), json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": _PATH},
            text=True,
        ) as child:
            assert child.stdout is not None
            try:
                if child.stdout.readline().strip() != probe.READY:
                    raise FirewallError(f"the network can't be proved: {child.communicate()[1].strip()}")
                link = f"usp{child.pid}"
                peer = ["name", probe.INTERFACE, "address", _PROBE_MAC, "netns", str(child.pid)]
                self._run(["ip", "link", "add", link, "type", "veth", "peer", *peer])
                self._run(["ip", "link", "set", link, "master", plan.interface, "up"])
                answers, complaint = child.communicate("go\n", timeout=_WAIT_S)
            except subprocess.TimeoutExpired as error:
                raise FirewallError("the network can't be proved: no answer") from error
            finally:
                child.kill()
        try:
            found: dict[str, str] = json.loads(answers)
        except ValueError as error:
            raise FirewallError(f"the network can't be proved: {complaint.strip()}") from error
        return found

    def _run(self, argv: Sequence[str], text: str = "") -> str:
        try:
            done = subprocess.run(
                [*self._inside, *argv],
                input=text,
                capture_output=True,
                text=True,
                check=False,
                timeout=_WAIT_S,
                env={"PATH": _PATH},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FirewallError(f"{argv[0]} can't be run: {error}") from error
        if done.returncode != 0:
            raise FirewallError(f"{' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout
