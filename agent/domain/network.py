"""What of the network a job may reach: its bridge, the packet filter's rules, and what is to be proved.

A job with a network has a bridge of its own, with nothing else on it. Whatever it bought, it reaches public
addresses only: not the host, not the seller's own network, not another job, not a cloud's metadata.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from agent.domain.attempt import AttemptKey, JobOrder, Network

# All bridges of jobs are named so, and nothing else: a rule for one of them can't be forgotten.
INTERFACE_PREFIX = "usn"
CHAIN_JOB = "USANCE-JOB"
CHAIN_HOST = "USANCE-HOST"
CHAINS = (CHAIN_JOB, CHAIN_HOST)
# The bridge, the container, and many addresses for whoever proves the rules: the kernel refuses one sender
# only so many times a second.
SUBNET_PREFIX = 28

LABEL_NETWORK = "usance.network"
LABEL_ALLOWED = "usance.allowed"

# Where the bridges are, unless the seller says otherwise.
POOL = IPv4Network("10.213.0.0/16")

# Every IPv4 network that is not public. What is reached through them is somebody's own.
REFUSED = tuple(
    IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
# A seller's address that sends unwanted mail is soon refused everywhere.
_MAIL_PORTS = (25, 465, 587)
# A resolver that nobody has and nobody may reach: with an allow-list, names are not asked for at all.
_NO_RESOLVER = "192.0.2.1"
_METADATA = IPv4Address("169.254.169.254")
# A public address, to see that what is not in a list is refused; nothing gets there unless the rules fail.
_NOT_LISTED = (IPv4Address("1.1.1.1"), IPv4Address("9.9.9.9"))
_ORDER = (Network.NONE, Network.ALLOW_LIST, Network.INTERNET)


@dataclass(frozen=True, kw_only=True)
class Destination:
    """As the buyer named it: a host name or a network, and a port unless all are meant."""

    name: str
    network: IPv4Network | None
    port: int | None


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What an allow-list comes down to."""

    network: IPv4Network
    port: int | None

    def __str__(self) -> str:
        return f"{self.network}" if self.port is None else f"{self.network}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class JobNetwork:
    """A job's bridge, as the rules see it."""

    interface: str
    network: Network
    allowed: tuple[Allowed, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """Everything that is said to the engine about a job's network."""

    name: str
    interface: str
    subnet: IPv4Network
    labels: Mapping[str, str]
    dns: tuple[str, ...]
    dns_options: tuple[str, ...]
    # Name and address, as they shall stand in the job's /etc/hosts.
    hosts: tuple[tuple[str, str], ...]

    @property
    def gateway(self) -> IPv4Address:
        return self.subnet[1]

    @property
    def probe_addresses(self) -> tuple[IPv4Address, ...]:
        """The engine gives the first free one, which is the container's."""
        return tuple(self.subnet.hosts())[2:]

    @property
    def options(self) -> dict[str, str]:
        return {
            "com.docker.network.bridge.name": self.interface,
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.enable_ip_masquerade": "true",
        }


@dataclass(frozen=True, kw_only=True)
class NetworkPolicy:
    """What the seller lets jobs have, and with what."""

    network_max: Network = Network.NONE
    # With ALLOW_LIST: what a job may ask for.
    destinations: tuple[str, ...] = ()
    pool: IPv4Network = POOL
    dns: tuple[str, ...] = ("1.1.1.1", "9.9.9.9")


def destination_of(text: str) -> Destination:
    """ "example.org:443", "203.0.113.0/24", "203.0.113.9:22". Raises ValueError."""
    host, colon, port_text = text.partition(":")
    port = int(port_text) if colon else None
    if not host or (port is not None and not 1 <= port <= 65_535):
        raise ValueError(f"{text!r} is no destination")
    try:
        network = IPv4Network(host, strict=False)
    except ValueError:
        return Destination(name=host, network=None, port=port)
    return Destination(name="", network=network, port=port)


def allowed_of(text: str) -> Allowed:
    """What `str` made of it."""
    network, colon, port = text.partition(":")
    return Allowed(network=IPv4Network(network), port=int(port) if colon else None)


def why_not_let(order: JobOrder, policy: NetworkPolicy) -> str:
    """Why the seller does not let a job have that much; empty where it does."""
    if _ORDER.index(order.network) > _ORDER.index(policy.network_max):
        return f"the job wants the network {order.network}, and this host lets it have {policy.network_max}"
    if policy.network_max is Network.ALLOW_LIST:
        offered = [destination_of(text) for text in policy.destinations]
        for text in order.network_destinations:
            if not any(_covers(each, destination_of(text)) for each in offered):
                return f"the job wants to reach {text}, which is not in this host's list"
    return ""


def _covers(offered: Destination, wanted: Destination) -> bool:
    if offered.port is not None and offered.port != wanted.port:
        return False
    if offered.network is None or wanted.network is None:
        return offered.network is None and offered.name == wanted.name
    return wanted.network.subnet_of(offered.network)


def is_public(address: IPv4Address) -> bool:
    return not any(address in network for network in REFUSED)


def subnet_of(pool: IPv4Network, taken: Iterable[IPv4Network]) -> IPv4Network | None:
    """The first of the pool that meets nothing else on this host; None where all are taken."""
    others = tuple(network for network in taken if network.overlaps(pool))
    for subnet in pool.subnets(new_prefix=SUBNET_PREFIX):
        if not any(subnet.overlaps(other) for other in others):
            return subnet
    return None


def interface_of(key: AttemptKey) -> str:
    """At most 15 bytes, as the kernel wants."""
    return INTERFACE_PREFIX + hashlib.sha256(str(key).encode()).hexdigest()[:10]


def network_plan(
    order: JobOrder,
    policy: NetworkPolicy,
    *,
    labels: Mapping[str, str],
    subnet: IPv4Network,
    addresses: Mapping[str, Sequence[IPv4Address]],
) -> NetworkPlan:
    """The network of an order. `addresses` are those of the names in its list; the job can't have others."""
    destinations = [destination_of(text) for text in order.network_destinations]
    allowed = [
        Allowed(network=network, port=destination.port)
        for destination in destinations
        for network in _networks(destination, addresses)
    ]
    named = {
        (destination.name, str(address))
        for destination in destinations
        for address in addresses.get(destination.name, ())
        if is_public(address)
    }
    is_listed = order.network is Network.ALLOW_LIST
    return NetworkPlan(
        name=f"usance-{order.key}",
        interface=interface_of(order.key),
        subnet=subnet,
        labels={
            **labels,
            LABEL_NETWORK: order.network.value,
            LABEL_ALLOWED: " ".join(map(str, allowed)) if is_listed else "",
        },
        dns=(_NO_RESOLVER,) if is_listed else policy.dns,
        # Who asks for a name that is not in the list learns soon that there is no answer.
        dns_options=("timeout:1", "attempts:1") if is_listed else (),
        hosts=tuple(sorted(named)) if is_listed else (),
    )


def _networks(
    destination: Destination, addresses: Mapping[str, Sequence[IPv4Address]]
) -> tuple[IPv4Network, ...]:
    if destination.network is not None:
        return (destination.network,)
    # A name whose owner points it at somebody's own network opens nothing.
    return tuple(IPv4Network(address) for address in addresses[destination.name] if is_public(address))


def job_network_of(labels: Mapping[str, str], interface: str) -> JobNetwork:
    """What a network's labels say, so that whoever comes after us knows its rules."""
    return JobNetwork(
        interface=interface,
        network=Network(labels[LABEL_NETWORK]),
        allowed=tuple(allowed_of(text) for text in labels[LABEL_ALLOWED].split()),
    )


def rules(jobs: Iterable[JobNetwork], own_networks: Iterable[IPv4Network], *, listed: Sequence[str]) -> str:
    """Our rules whole, for iptables-restore: they replace those that were there, at once.

    What begins on a job's bridge and has no rule is refused. `own_networks` are those that the host is in,
    public or not; `listed` are all rules there are.
    """
    own = {network for network in own_networks if not any(network.subnet_of(each) for each in REFUSED)}
    lines = [
        "*filter",
        *(f":{chain} - [0:0]" for chain in CHAINS),
        f"-A {CHAIN_JOB} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        # Nobody calls a job. (What comes from another job is refused below, as being for no public address.)
        f"-A {CHAIN_JOB} ! -i {INTERFACE_PREFIX}+ -j DROP",
        *(f"-A {CHAIN_JOB} -d {network} {_REFUSE}" for network in (*REFUSED, *sorted(own))),
        f"-A {CHAIN_JOB} -p tcp -m multiport --dports {','.join(map(str, _MAIL_PORTS))} {_REFUSE}",
    ]
    for job in sorted(jobs, key=lambda job: job.interface):
        if job.network is Network.INTERNET:
            lines.append(f"-A {CHAIN_JOB} -i {job.interface} -j RETURN")
        for allowed in job.allowed:
            lines += _allow(job.interface, allowed)
    lines += [
        f"-A {CHAIN_JOB} {_REFUSE}",
        f"-A {CHAIN_HOST} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        f"-A {CHAIN_HOST} {_REFUSE}",
        # At the head again, whatever came before them since.
        *_without_jumps(listed),
        *(
            f"-I {parent} 1 {way} {INTERFACE_PREFIX}+ -j {CHAIN_JOB}"
            for parent in _parents(listed)
            for way in ("-o", "-i")
        ),
        f"-I INPUT 1 -i {INTERFACE_PREFIX}+ -j {CHAIN_HOST}",
    ]
    return "\n".join([*lines, "COMMIT\n"])


def rules_v6(*, listed: Iterable[str]) -> str:
    """The same for IPv6, of which a job has nothing.

    The engine gives its container none; but a bridge has an address of its own, where the host answers.
    """
    drop = f"-j {CHAIN_JOB}"
    lines = [
        "*filter",
        f":{CHAIN_JOB} - [0:0]",
        f"-A {CHAIN_JOB} -j DROP",
        *_without_jumps(listed),
        f"-I FORWARD 1 -o {INTERFACE_PREFIX}+ {drop}",
        f"-I FORWARD 1 -i {INTERFACE_PREFIX}+ {drop}",
        f"-I INPUT 1 -i {INTERFACE_PREFIX}+ {drop}",
    ]
    return "\n".join([*lines, "COMMIT\n"])


def rules_removed(listed: Sequence[str]) -> str:
    """What takes all that is ours away."""
    chains = [chain for chain in CHAINS if f"-N {chain}" in listed]
    lines = [
        *_without_jumps(listed),
        *(f"-F {chain}" for chain in chains),
        *(f"-X {chain}" for chain in chains),
    ]
    return "\n".join(["*filter", *lines, "COMMIT\n"])


def ours(listed: Iterable[str]) -> list[str]:
    """Those of all rules that are ours or lead to ours."""
    return [line for line in listed if any(chain in line.split() for chain in CHAINS)]


def _parents(listed: Iterable[str]) -> tuple[str, ...]:
    """Where forwarded packets pass.

    Docker keeps a place for rules of others before its own, which not every engine has. It alone would not
    do: whenever a network is made, the engine takes the way there out and puts it in again at the head, and
    in between the jobs that run would reach everything.
    """
    return ("FORWARD", "DOCKER-USER") if "-N DOCKER-USER" in listed else ("FORWARD",)


def _without_jumps(listed: Iterable[str]) -> list[str]:
    return [
        f"-D {line.removeprefix('-A ')}"
        for line in ours(listed)
        if line.startswith("-A ") and line.split()[1] not in CHAINS
    ]


# Told, not dropped: a job that tries finds out at once, and so do we when we prove it.
_REFUSE = "-j REJECT --reject-with icmp-admin-prohibited"


def _allow(interface: str, allowed: Allowed) -> list[str]:
    to = f"-A {CHAIN_JOB} -i {interface} -d {allowed.network}"
    if allowed.port is None:
        return [f"{to} -j RETURN"]
    return [f"{to} -p {protocol} --dport {allowed.port} -j RETURN" for protocol in ("tcp", "udp")]


def must_be_refused(
    plan: NetworkPlan, job: JobNetwork, host_addresses: Sequence[IPv4Address], routers: Sequence[IPv4Address]
) -> tuple[IPv4Address, ...]:
    """Addresses to try from the job's bridge before anything of the job runs there."""
    unlisted = [
        address
        for address in _NOT_LISTED
        if job.network is Network.ALLOW_LIST
        and not any(address in allowed.network for allowed in job.allowed)
    ]
    wanted = [plan.gateway, _METADATA, *routers[:1], *host_addresses[:1], *unlisted[:1]]
    return tuple(dict.fromkeys(wanted))
