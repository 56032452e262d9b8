"""Strangers' jobs through the whole market, in real containers.

They reach what they bought, and what is theirs alone is seen by nobody else. The internet is another network
namespace; nothing leaves the machine.
"""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cli.client.market import Market
from tests.contract.test_job_network import CALLS, EVERYWHERE
from tests.rig.dockerd import Engine, EngineOptions, Network, running_engine
from tests.rig.fixtures import parts_needed
from tests.rig.images import PYTHON, python_image
from tests.rig.outside import OTHER_PORT, OTHER_SITE, PORT, SITE, world_around
from tests.rig.parts import wait_until
from tests.support.agent_process import supervisors
from tests.support.agent_terms import AgentTerms
from tests.support.market import WholeMarket
from tests.support.running_usance import Running
from tests.support.through import answered_inside

pytestmark = [pytest.mark.docker, pytest.mark.slow]

CANARY = "canary-77c0ffee"
NETWORK = (
    f'network = "internet"\nnetwork_pool = "10.213.0.0/24"\ndns_servers = ["{SITE}"]\nworkspace_mib = 64'
)


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WholeMarket, Engine]]:
    """A seller who lets jobs have the internet, with an engine and an agent in a network of their own."""
    market = WholeMarket(tmp_path_factory.mktemp("strangers") / "m")
    with parts_needed(), running_engine(EngineOptions(network=Network.PRIVATE)) as engine:
        inside = engine.in_network([])
        addresses = {address: address for address in (market.market_address, market.hosts_address)}
        namespace = Path(inside[1].removeprefix("--net="))
        with world_around(engine), answered_inside(namespace, addresses):
            try:
                market.start()
                market.open_account("buyer", "buyer", deposit="100")
                market.open_account("seller", "seller")
                with engine.client() as client:
                    python_image(client)
                terms = AgentTerms(
                    executor="docker",
                    docker_host=engine.base_url,
                    simulated_gpus=3,
                    price="1",
                    inside=tuple(inside),
                    more=NETWORK,
                )
                market.add_agent("one", "seller", terms)
                yield market, engine
            finally:
                print(market.log("coordinator")[-3_000:], market.log("agent-one")[-3_000:])
                market.stop()


def start(market: WholeMarket, *how: str, script: str, arguments: tuple[str, ...] = ()) -> Running:
    base = ("run", "-y", "--simulated", "--budget", "5", "--memory", "256MB", "--image", PYTHON)
    return Running(market, "buyer", *base, *how, "--", "python3", "-c", script, *arguments)


def test_a_job_reaches_what_its_buyer_bought_and_nothing_else(around):
    market, _ = around
    bought = {
        ("--network", "none"): [],
        ("--network", "internet"): [f"{SITE}:{PORT}", f"{OTHER_SITE}:{PORT}", f"{SITE}:{OTHER_PORT}"],
        ("--reach", f"{OTHER_SITE}:{PORT}", "--reach", "10.0.0.0/8"): [f"{OTHER_SITE}:{PORT}"],
    }
    runs = {how: start(market, *how, script=CALLS, arguments=tuple(EVERYWHERE)) for how in bought}
    for how, run in runs.items():
        assert run.end() == 0, run.err
        assert json.loads(run.out) == bought[how], how


SHOWS = """
import hashlib, os
os.mkfifo("/tmp/go")
with open("/run/secrets/TOKEN", "rb") as file:
    print(hashlib.sha256(file.read()).hexdigest(), flush=True)
open("/tmp/go").read()
"""


def test_a_secret_is_seen_by_its_job_and_by_nobody_else(around, tmp_path):
    """The canary is looked for in all that is kept, logged, shown and told, while the job runs and after."""
    market, engine = around
    (tmp_path / "token").write_text(CANARY)
    (tmp_path / "password").write_text(CANARY)
    login = ("--registry-user", "me", "--registry-password-file", f"{tmp_path}/password")
    secret = ("--name", "secret", "--secret", f"TOKEN={tmp_path}/token")
    run = start(market, *secret, *login, script=SHOWS)
    assert run.line().decode().strip() == _sha256(CANARY)
    wait_until(lambda: "submitted" in run.err, "it was submitted")
    told = [*_told(market, "secret"), *_inspected(engine)]
    assert _kept(market.folder, b"job_sealed") != []
    assert _core_limits(market) == {("usance-agent", "0"), ("usance-coordinator", "0")}
    _let_go(engine)
    assert run.end() == 0, run.err
    told += [*_told(market, "@last"), run.err, *market.ask("buyer", _events)]
    assert [text for text in told if CANARY in text] == []
    assert _kept(market.folder, CANARY.encode()) == []
    assert _boxes(market) == [0]


WAITS = "import signal; print('up', flush=True); signal.pause()"


def test_an_agent_that_is_taken_off_leaves_nothing(around, tmp_path):
    """The last of this file: it takes the agent with it, in the middle of a job that has everything."""
    market, engine = around
    (tmp_path / "token").write_text(CANARY)
    host_id, state = market.host_id("one"), market.runs_of("one").parent
    has = ("--network", "internet", "--secret", f"TOKEN={tmp_path}/token")
    assert start(market, "--detach", "--name", "last", *has, script=WAITS).end() == 0
    wait_until(lambda: "up" in market.usance("buyer", "logs", "last").stdout, "it runs")
    secrets = Path(f"/dev/shm/usance-{host_id}")
    assert secrets.is_dir()
    (supervisor,) = supervisors(state)
    market.agent_command("one", "uninstall", "--yes", "--end-jobs")
    with engine.client() as client:
        assert client.api.containers(all=True) == []
        assert [network["Name"] for network in client.api.networks() if "usance" in network["Name"]] == []
    for filter_of in ("iptables", "ip6tables"):
        rules = subprocess.check_output(engine.in_network([filter_of, "-S"]), text=True)
        assert "USANCE" not in rules
    links = subprocess.check_output(engine.in_network(["ip", "-brief", "link"]), text=True)
    assert "usn" not in links
    assert not secrets.exists()
    assert not state.exists()
    wait_until(lambda: not Path(f"/proc/{supervisor}").exists(), "its supervisor is gone")
    agent = market._agents["one"].process
    assert agent is not None
    assert agent.wait(60) == 0


def _sha256(text: str) -> str:
    return subprocess.check_output(["sha256sum"], input=text.encode()).decode().split()[0]


def _told(market: WholeMarket, job: str) -> list[str]:
    """What everybody is shown."""
    asked = [
        market.usance("buyer", "show", job, "--json").stdout,
        market.usance("seller", "hosts", "--json").stdout,
    ]
    assert '"secret_names": ["TOKEN"]' in asked[0]
    return asked


async def _events(client: Market) -> list[str]:
    (job_id, *_) = [job.job_id async for job in client.list_jobs(page_size=1)]
    return [repr(event) async for event in client.watch_job(job_id)]


def _inspected(engine: Engine) -> list[str]:
    with engine.client() as client:
        return [json.dumps(client.api.inspect_container(c["Id"])) for c in client.api.containers(all=True)]


def _core_limits(market: WholeMarket) -> set[tuple[str, str]]:
    """Of the two that have the secret in their memory."""
    found = set()
    for pid in market.processes():
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        (core,) = [line.split()[4] for line in limits if line.startswith("Max core file size")]
        for name in ("usance-agent", "usance-coordinator"):
            if any(argument.endswith(name.encode()) for argument in arguments):
                found.add((name, core))
    return found


def _let_go(engine: Engine) -> None:
    with engine.client() as client:
        for container in client.containers.list():
            container.exec_run(["python3", "-c", "open('/tmp/go', 'w').close()"])


def _kept(folder: Path, what: bytes) -> list[Path]:
    """Files of the coordinator's and the agent's that hold it: databases, logs, journals, keys."""
    return [path for path in folder.rglob("*") if path.is_file() and what in path.read_bytes()]


def _boxes(market: WholeMarket) -> list[int]:
    with closing(sqlite3.connect(market.folder / "coordinator" / "usance.db")) as database:
        return [count for (count,) in database.execute("SELECT count(*) FROM job_sealed")]
