"""The bridges of jobs: made, watched and taken away, together with the packet filter's rules for them."""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from agent.domain.attempt import AttemptKey, EndReason, JobOrder
from agent.domain.network import (
    LABEL_NETWORK,
    JobNetwork,
    NetworkPlan,
    NetworkPolicy,
    destination_of,
    job_network_of,
    network_plan,
    subnet_of,
    why_not_let,
)
from agent.executor.firewall import Firewall, FirewallError, UnprovenError
from agent.executor.ports import StartError

Resolve = Callable[[str], Sequence[IPv4Address]]

log = logging.getLogger(__name__)


def resolve(name: str) -> list[IPv4Address]:
    """By the host's own resolver. Raises OSError."""
    found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    return sorted({IPv4Address(entry[4][0]) for entry in found})


class JobNetworks:
    """Over the engine's own client, whose errors come through. Everything here may be called from threads."""

    def __init__(
        self,
        api: Any,  # noqa: ANN401  # the client has no types
        policy: NetworkPolicy,
        firewall: Firewall,
        label: str,
        resolver: Resolve = resolve,
    ) -> None:
        self._api = api
        self._policy = policy
        self._firewall = firewall
        # All networks of ours have it.
        self._label = label
        self._resolve = resolver
        # Two starts must not take the same subnet, nor set the rules of yesterday.
        self._changing = threading.Lock()

    def make(self, order: JobOrder, labels: Mapping[str, str]) -> NetworkPlan:
        """The job's network, with rules that are proved to hold. Raises StartError."""
        refusal = why_not_let(order, self._policy)
        if refusal:
            raise StartError(EndReason.START_FAILED, refusal)
        addresses = {name: self._addresses(name) for name in _names(order)}
        try:
            with self._changing:
                plan = self._create(order, labels, addresses)
                self._set_rules()
            self._firewall.prove(plan, job_network_of(plan.labels, plan.interface))
        except FirewallError as error:
            self.remove(order.key, labels)
            raise StartError(EndReason.START_FAILED, f"the job gets no network here: {error}") from error
        return plan

    def remove(self, key: AttemptKey, labels: Mapping[str, str]) -> None:
        """Nothing to remove is success."""
        with self._changing:
            if self._remove(labels):
                log.debug("the network of %s is gone", key)
                # Rules that nothing needs do no harm, and the next change sets them all.
                with contextlib.suppress(FirewallError):
                    self._set_rules()

    def held(self) -> list[Mapping[str, str]]:
        """The labels of all networks of ours."""
        return [network["Labels"] for network in self._networks()]

    def leave(self) -> None:
        """No rule of ours stays. Raises nothing where there is no packet filter."""
        with self._changing, contextlib.suppress(FirewallError):
            self._firewall.remove()

    def look(self, *, prove: bool) -> list[str]:
        """Are the rules as we set them, and, if asked, do they hold? If not, set them again.

        Where that does not help, jobs lose their networks: better that than one that leads everywhere. Says
        what was wrong, in words.
        """
        with self._changing:
            found = self._networks()
            if not found:
                return []
            told: list[str] = []
            try:
                if not self._firewall.is_as_set() or (prove and not self._holds(found, told)):
                    told.append("the packet filter's rules for jobs were gone or changed, and are set again")
                    self._set_rules()
                    self._prove(found)
            except UnprovenError as error:
                told.append(str(error))
            except FirewallError as error:
                told.append(str(error))
                told += self._cut_off(found)
            return told

    def _holds(self, networks: Iterable[Mapping[str, Any]], told: list[str]) -> bool:
        try:
            self._prove(networks)
        except FirewallError as error:
            told.append(str(error))
            return isinstance(error, UnprovenError)
        return True

    def _prove(self, networks: Iterable[Mapping[str, Any]]) -> None:
        for network in networks:
            self._firewall.prove(_plan_of(network), _job_network_of(network))

    def _cut_off(self, networks: Iterable[Mapping[str, Any]]) -> list[str]:
        told = []
        for network in networks:
            inside = self._api.inspect_network(network["Id"]).get("Containers") or {}
            for container in inside:
                self._api.disconnect_container_from_network(container, network["Id"], force=True)
                told.append(f"the job of {network['Name']} was cut off from its network")
        return told

    def _create(
        self, order: JobOrder, labels: Mapping[str, str], addresses: Mapping[str, Sequence[IPv4Address]]
    ) -> NetworkPlan:
        self._remove(labels)  # a half-made one of an agent that was killed
        taken = [*self._firewall.taken(), *self._subnets()]
        subnet = subnet_of(self._policy.pool, taken)
        if subnet is None:
            raise FirewallError(f"all of {self._policy.pool} is in use")
        plan = network_plan(order, self._policy, labels=labels, subnet=subnet, addresses=addresses)
        self._api.create_network(
            plan.name,
            driver="bridge",
            options=plan.options,
            ipam={"Config": [{"Subnet": str(plan.subnet), "Gateway": str(plan.gateway)}]},
            labels=dict(plan.labels),
            check_duplicate=True,
            enable_ipv6=False,
        )
        found = differences(plan, self._api.inspect_network(plan.name))
        if found:
            raise FirewallError(f"the engine made another network than asked: {'; '.join(found)}")
        return plan

    def _remove(self, labels: Mapping[str, str]) -> int:
        found = self._api.networks(filters={"label": [f"{name}={value}" for name, value in labels.items()]})
        for network in found:
            self._api.remove_network(network["Id"])
        return len(found)

    def _set_rules(self) -> None:
        jobs = [_job_network_of(network) for network in self._networks()]
        if jobs:
            self._firewall.set(jobs)
        else:
            self._firewall.remove()

    def _networks(self) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = self._api.networks(filters={"label": [self._label, LABEL_NETWORK]})
        return found

    def _subnets(self) -> list[IPv4Network]:
        """Also of networks whose bridge is down and so has no route."""
        return [
            IPv4Network(config["Subnet"])
            for network in self._api.networks()
            for config in (network.get("IPAM") or {}).get("Config") or ()
            if ":" not in config["Subnet"]
        ]

    def _addresses(self, name: str) -> Sequence[IPv4Address]:
        try:
            return self._resolve(name)
        except OSError as error:
            detail = f"the address of {name}, which the job may reach, can't be found: {error}"
            raise StartError(EndReason.START_FAILED, detail) from error


def differences(plan: NetworkPlan, inspected: Mapping[str, Any]) -> list[str]:
    """In words, what is other than planned; empty where all is right."""
    wanted: dict[str, tuple[object, object]] = {
        "driver": ("bridge", inspected["Driver"]),
        "options": (plan.options, inspected["Options"]),
        "subnet": (
            [(str(plan.subnet), str(plan.gateway))],
            [(config.get("Subnet"), config.get("Gateway")) for config in inspected["IPAM"]["Config"]],
        ),
        "labels": (dict(plan.labels), inspected["Labels"]),
        "IPv6": (False, inspected["EnableIPv6"]),
        "attachable": (False, inspected["Attachable"]),
        "ingress": (False, inspected["Ingress"]),
        "scope": ("local", inspected["Scope"]),
    }
    return [
        f"{name}: {actual!r} instead of {right!r}"
        for name, (right, actual) in wanted.items()
        if right != actual
    ]


def _names(order: JobOrder) -> set[str]:
    return {destination_of(text).name for text in order.network_destinations} - {""}


def _job_network_of(network: Mapping[str, Any]) -> JobNetwork:
    return job_network_of(network["Labels"], network["Options"]["com.docker.network.bridge.name"])


def _plan_of(network: Mapping[str, Any]) -> NetworkPlan:
    return NetworkPlan(
        name=network["Name"],
        interface=network["Options"]["com.docker.network.bridge.name"],
        subnet=IPv4Network(network["IPAM"]["Config"][0]["Subnet"]),
        labels=network["Labels"],
        dns=(),
        dns_options=(),
        hosts=(),
    )
