"""What a job reaches, on a real engine with a packet filter: what it bought, and never the seller's own."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import docker
import pytest

from agent.domain.attempt import EndReason, JobOrder, Network, OutputStream
from agent.domain.network import NetworkPolicy, ours, rules
from agent.executor import firewall
from agent.executor.docker import DockerExecutor
from agent.executor.firewall import Firewall
from agent.executor.ports import StartError
from tests.contract.test_executor import collect, docker_executor, end_of
from tests.rig.dockerd import Engine, EngineOptions, running_engine
from tests.rig.dockerd import Network as EngineNetwork
from tests.rig.fixtures import parts_needed
from tests.rig.images import PYTHON, python_image
from tests.rig.outside import (
    HOST,
    METADATA,
    NEIGHBOUR,
    OTHER_PORT,
    OTHER_SITE,
    PORT,
    SITE,
    World,
    world_around,
)
from tests.support.orders import order

pytestmark = [pytest.mark.docker, pytest.mark.slow]

POLICY = NetworkPolicy(network_max=Network.INTERNET, pool=IPv4Network("10.213.0.0/24"), dns=(SITE,))
EVERYWHERE = [
    *(f"{address}:{PORT}" for address in (SITE, OTHER_SITE, HOST, NEIGHBOUR, METADATA)),
    f"{SITE}:{OTHER_PORT}",
    f"{SITE}:25",
]
# Prints what answers. A closed port answers too: it says that the way there is open.
CALLS = """
import errno, json, socket, sys
reached = []
for target in sys.argv[1:]:
    host, port = target.split(":")
    with socket.socket() as connection:
        connection.settimeout(1)
        try:
            code = connection.connect_ex((host, int(port)))
        except OSError:
            continue
    if code in (0, errno.ECONNREFUSED):
        reached.append(target)
print(json.dumps(reached))
"""

LISTENS = f"""
import socket
server = socket.create_server(("0.0.0.0", {PORT}))
print("up", flush=True)
while True:
    server.accept()
"""


@pytest.fixture(scope="module")
def around() -> Iterator[tuple[Engine, World]]:
    engine = running_engine(EngineOptions(network=EngineNetwork.PRIVATE))
    with parts_needed(), engine as own, world_around(own) as world:
        with own.client() as client:
            python_image(client)
        yield own, world
        assert "USANCE" not in iptables(own, "-S")
        assert "USANCE" not in ip6tables(own, "-S")
        assert interfaces(own) <= {"lo", "docker0", "lan"}


@pytest.fixture
def engine(around: tuple[Engine, World]) -> Engine:
    return around[0]


@pytest.fixture
def world(around: tuple[Engine, World]) -> World:
    return around[1]


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    with engine.client() as client:
        yield client


@pytest.fixture
def executor(engine: Engine, tmp_path: Path) -> DockerExecutor:
    return networked(engine, tmp_path)


def networked(engine: Engine, folder: Path, **changes: Any) -> DockerExecutor:
    executor = docker_executor(engine, folder, Firewall(inside=engine.in_network([])))
    executor._networks._policy = replace(POLICY, **changes)
    return executor


def iptables(engine: Engine, *arguments: str) -> str:
    return subprocess.check_output(engine.in_network(["iptables", *arguments]), text=True)


def ip6tables(engine: Engine, *arguments: str) -> str:
    return subprocess.check_output(engine.in_network(["ip6tables", *arguments]), text=True)


def interfaces(engine: Engine) -> set[str]:
    listed = subprocess.check_output(engine.in_network(["ip", "-json", "link"]), text=True)
    return {link["ifname"] for link in json.loads(listed) if not link["ifname"].startswith("usp")}


def caller(*targets: str, attempt_id: str = "a", **changes: Any) -> JobOrder:
    command = ("python3", "-c", CALLS, *targets)
    return order(attempt_id, image=PYTHON, command=command, **changes)


# Another machine on the bridge, with an address of its own making. (Not at once taken for a stranger's: the
# bridge is not asked whether it is free.)
KNOCKS = """
import ctypes, errno, os, socket, subprocess, sys
ctypes.CDLL(None).unshare(0x40000000)
print(os.getpid(), flush=True)
sys.stdin.readline()
subprocess.run("ip link set knock up && ip address add fe80::77/64 dev knock nodad", shell=True, check=True)
with socket.socket(socket.AF_INET6) as connection:
    connection.settimeout(1)
    try:
        code = connection.connect_ex(("fe80::1", 9, 0, socket.if_nametoindex("knock")))
    except OSError as error:
        code = error.errno
print(code in (0, errno.ECONNREFUSED))
"""


def neighbour_answers(engine: Engine, bridge: str) -> bool:
    """Does the host answer to who calls it by IPv6 from a job's bridge?"""

    def ip(*arguments: str) -> None:
        subprocess.run(engine.in_network(["ip", *arguments]), check=True, capture_output=True)

    with subprocess.Popen(
        [sys.executable, "-c", KNOCKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        pid = child.stdout.readline().strip()
        ip("-6", "address", "replace", "fe80::1/64", "dev", bridge, "nodad")
        ip("link", "add", f"usp{pid}", "type", "veth", "peer", "name", "knock", "netns", pid)
        ip("link", "set", f"usp{pid}", "master", bridge, "up")
        answer, _ = child.communicate("go\n", timeout=30)
    return answer.strip() == "True"


def scenario(test):
    """Runs an async test and clears up after it."""

    def run(executor: DockerExecutor, engine: Engine, world: World, client: docker.DockerClient) -> None:
        async def whole() -> None:
            try:
                await test(executor, engine, world, client)
            finally:
                for key in await executor.held():
                    await executor.destroy(key)
                await executor.close()

        asyncio.run(whole())
        assert client.api.containers(all=True) == []
        assert [n["Name"] for n in client.api.networks() if n["Name"].startswith("usance")] == []

    return run


async def begin(executor: DockerExecutor, job: JobOrder) -> None:
    await executor.prepare(job, lambda _: None)
    await executor.start(job, 600_000)


async def reached(executor: DockerExecutor, job: JobOrder) -> list[str]:
    await begin(executor, job)
    found = await collect(executor, job)
    assert (await end_of(executor, job)).exit_code == 0
    return list(json.loads(found[OutputStream.STDOUT]))


@scenario
async def test_the_internet_is_public_addresses_and_nothing_else(executor, engine, world, client):
    job = caller(*EVERYWHERE, network=Network.INTERNET)
    assert await reached(executor, job) == [f"{SITE}:{PORT}", f"{OTHER_SITE}:{PORT}", f"{SITE}:{OTHER_PORT}"]


@scenario
async def test_a_list_is_what_stands_in_it(executor, engine, world, client):
    executor._networks._resolve = lambda name: [IPv4Address(OTHER_SITE), IPv4Address(NEIGHBOUR)]
    job = caller(
        *EVERYWHERE,
        f"site.example:{PORT}",
        f"unknown.example:{PORT}",
        network=Network.ALLOW_LIST,
        network_destinations=(f"{SITE}:{PORT}", "site.example", f"{HOST}:{PORT}", "10.0.0.0/8"),
    )
    assert await reached(executor, job) == [
        f"{SITE}:{PORT}",
        f"{OTHER_SITE}:{PORT}",
        f"site.example:{PORT}",
    ]


@scenario
async def test_names_are_resolved_outside_the_sellers_lan(executor, engine, world, client):
    job = caller(f"anything.example:{PORT}", network=Network.INTERNET)
    assert await reached(executor, job) == [f"anything.example:{PORT}"]


@scenario
async def test_a_job_without_a_network_has_none(executor, engine, world, client):
    assert await reached(executor, caller(*EVERYWHERE)) == []


@scenario
async def test_a_job_has_no_ipv6_and_its_bridge_takes_none(executor, engine, world, client):
    job = order(image=PYTHON, command=("cat", "/proc/net/if_inet6"), network=Network.INTERNET)
    await begin(executor, job)
    (bridge,) = [name for name in interfaces(engine) if name.startswith("usn")]
    before = ours(ip6tables(engine, "-S").splitlines())
    assert await asyncio.to_thread(neighbour_answers, engine, bridge) is False
    ip6tables(engine, "-F", "USANCE-JOB")
    assert await asyncio.to_thread(neighbour_answers, engine, bridge) is True
    await executor.look()
    assert ours(ip6tables(engine, "-S").splitlines()) == before
    found = (await collect(executor, job))[OutputStream.STDOUT].decode()
    assert {line.split()[-1] for line in found.splitlines()} <= {"lo"}


@scenario
async def test_jobs_do_not_reach_each_other_nor_does_the_lan_reach_them(executor, engine, world, client):
    one = order(image=PYTHON, command=("python3", "-c", LISTENS), network=Network.INTERNET)
    await begin(executor, one)
    async for _ in executor.output(one, 0):
        break
    address = client.api.inspect_container(f"usance-{one.key}")["NetworkSettings"]["Networks"]
    (inside,) = [network["IPAddress"] for network in address.values()]
    other = caller(f"{inside}:{PORT}", attempt_id="b", network=Network.INTERNET)
    assert await reached(executor, other) == []
    calls = world.in_network([sys.executable, "-c", CALLS, f"{inside}:{PORT}"])
    assert json.loads(await asyncio.to_thread(subprocess.check_output, calls)) == []


@scenario
async def test_the_seller_decides_how_much(executor, engine, world, client):
    executor._networks._policy = replace(POLICY, network_max=Network.ALLOW_LIST, destinations=(SITE,))
    for job in (
        caller(network=Network.INTERNET),
        caller(network=Network.ALLOW_LIST, network_destinations=(OTHER_SITE,)),
    ):
        with pytest.raises(StartError, match="the job wants") as caught:
            await executor.prepare(job, lambda _: None)
        assert caught.value.reason is EndReason.START_FAILED


@scenario
async def test_rules_that_a_reload_drops_come_back(executor, engine, world, client):
    job = order(image=PYTHON, command=("python3", "-c", LISTENS), network=Network.INTERNET)
    await begin(executor, job)
    inside = client.containers.get(f"usance-{job.key}")
    calls = ["python3", "-c", CALLS, f"{HOST}:{PORT}", f"{NEIGHBOUR}:{PORT}"]
    before = ours(iptables(engine, "-S").splitlines())
    forwarded = [line.split()[1:] for line in before if line.startswith("-A FORWARD ")]
    flushed = [["-F", "DOCKER-USER"], *(["-D", *line] for line in forwarded)]
    for reload in (flushed, [["-F", "INPUT"]], [["-F", "USANCE-JOB"]]):
        for change in reload:
            iptables(engine, *change)
        assert json.loads(inside.exec_run(calls).output) != []
        await executor.look()
        assert json.loads(inside.exec_run(calls).output) == []
    assert ours(iptables(engine, "-S").splitlines()) == before


@scenario
async def test_while_the_engine_arranges_its_own_rules_nothing_is_let_through(
    executor, engine, world, client
):
    """For each network that is made, it takes out the way to its place for others' rules, and puts it in."""
    job = order(image=PYTHON, command=("python3", "-c", LISTENS), network=Network.INTERNET)
    await begin(executor, job)
    inside = client.containers.get(f"usance-{job.key}")
    iptables(engine, "-D", "FORWARD", "-j", "DOCKER-USER")
    try:
        calls = ["python3", "-c", CALLS, f"{NEIGHBOUR}:{PORT}", f"{SITE}:{PORT}"]
        assert json.loads(inside.exec_run(calls).output) == [f"{SITE}:{PORT}"]
    finally:
        iptables(engine, "-I", "FORWARD", "1", "-j", "DOCKER-USER")


@scenario
async def test_a_rule_of_the_sellers_before_ours_is_found_by_the_proof(executor, engine, world, client):
    job = order(image=PYTHON, command=("python3", "-c", LISTENS), network=Network.INTERNET)
    await begin(executor, job)
    iptables(engine, "-I", "INPUT", "1", "-j", "ACCEPT")
    try:
        executor._looks = 11
        await executor.look()
        assert iptables(engine, "-S", "INPUT").splitlines()[1] == "-A INPUT -i usn+ -j USANCE-HOST"
    finally:
        iptables(engine, "-D", "INPUT", "-j", "ACCEPT")


def test_who_can_not_be_kept_in_is_cut_off(executor, engine, client, monkeypatch):
    """The firewall is set again, and it is of no use."""
    job = order(image=PYTHON, command=("python3", "-c", LISTENS), network=Network.INTERNET)

    async def story() -> None:
        await begin(executor, job)
        monkeypatch.setattr(firewall, "rules", lambda *a, **k: _without_chain(rules(*a, **k), "USANCE-HOST"))
        iptables(engine, "-F", "INPUT")
        await executor.look()
        calls = ["python3", "-c", CALLS, f"{HOST}:{PORT}", f"{SITE}:{PORT}"]
        assert json.loads(client.containers.get(f"usance-{job.key}").exec_run(calls).output) == []
        assert await executor.is_running(job)
        await executor.destroy(job.key)
        await executor.close()

    asyncio.run(story())


def _without_chain(text: str, chain: str) -> str:
    return "\n".join(
        f"-A {chain} -j RETURN" if line.startswith(f"-A {chain} ") else line for line in text.split("\n")
    )


@pytest.mark.parametrize("chain", ["USANCE-JOB", "USANCE-HOST"])
def test_nothing_starts_where_the_rules_do_not_hold(chain, executor, engine, client, monkeypatch):
    """The probe is what finds it: the rules are set, listed, and useless."""
    monkeypatch.setattr(firewall, "rules", lambda *a, **k: _without_chain(rules(*a, **k), chain))

    async def story() -> None:
        with pytest.raises(StartError, match="is not kept in its network"):
            await executor.prepare(caller(network=Network.INTERNET), lambda _: None)
        for key in await executor.held():
            await executor.destroy(key)
        await executor.close()

    asyncio.run(story())


def test_the_check_up_proves_that_a_job_is_held_and_leaves_nothing(engine, executor, client):
    executor._policy = replace(executor._policy, network=POLICY)
    before = {network["Name"] for network in client.api.networks()}
    assert asyncio.run(executor.try_network()) == ""
    assert {network["Name"] for network in client.api.networks()} == before
    asyncio.run(executor.close())
