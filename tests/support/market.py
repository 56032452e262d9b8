"""A whole market of real processes on this machine: coordinator, agents, and the `usance` command.

For end-to-end tests and the demo. It uses what is installed beside the running Python, ports of its own on
the loopback interface, and one folder; `stop` leaves nothing of it.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import docker
import docker.errors

from agent.domain.plan import LABEL_HOST
from tests.rig.parts import free_port, spawn, wait_until
from tests.rig.parts import stop as stop_process
from tests.support.agent_terms import AgentTerms
from tests.support.marked import marked_by

if TYPE_CHECKING:
    from cli.client.market import Market
    from cli.connection import Connection

_Result = TypeVar("_Result")

OPERATOR = "operator"
_PROGRAMS = Path(sys.executable).parent
# Quick to see that somebody has come back.
_BEAT_MS = 500
_READY = re.compile(r"^ready market=(\S+) hosts=(\S+)$", re.MULTILINE)
# How long the last runs may take to leave when all is stopped, before they are ended by force.
_LEAVE_S = 15.0
# Longer than any command of a test may take, also on a busy machine.
RUN_S = 150


def program(name: str) -> str:
    """A command of ours, as installed in this environment."""
    return str(_PROGRAMS / name)


@dataclass
class _Agent:
    seller: str
    folder: Path
    terms: AgentTerms
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "agent.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"


@dataclass
class WholeMarket:
    """`start`, `open_account`, `add_agent`, then use it; `stop` in the end, whatever happened."""

    folder: Path
    # A PostgreSQL URL; without one SQLite in the folder.
    database: str | None = None
    # Slow to give up on one whom a test has killed.
    window_ms: int = 30_000
    # Where machines are told to find the coordinator, if not where it is.
    market_public: str = ""
    hosts_public: str = ""
    # What runs the coordinator in the network namespace where it is to live.
    inside: tuple[str, ...] = ()
    market_address: str = field(init=False)
    hosts_address: str = field(init=False)
    metrics_address: str = field(init=False)

    def __post_init__(self) -> None:
        ours = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.market_address, self.hosts_address, self.metrics_address = ours
        self._tokens: dict[str, str] = {}
        self._agents: dict[str, _Agent] = {}
        self._coordinator: subprocess.Popen[bytes] | None = None

    # The coordinator

    def start(self) -> None:
        """Make the market and start its coordinator."""
        from coordinator.app import initialise
        from coordinator.settings import Settings

        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = initialise(Settings(data_dir=self.data, database=self.database or ""))
        self._tokens[OPERATOR] = token.read_text().strip()
        self.start_coordinator()

    def start_coordinator(self) -> None:
        told_before = len(_READY.findall(self.log("coordinator")))
        process = self.spawn_coordinator()

        def ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"the coordinator ended at once:\n{self.log('coordinator')}")
            return len(_READY.findall(self.log("coordinator"))) > told_before

        wait_until(ready, "the coordinator is ready")

    def spawn_coordinator(self) -> "subprocess.Popen[bytes]":
        """One that may not be ready yet."""
        where = ["--market", self.market_address, "--hosts", self.hosts_address]
        where += ["--market-public", self.market_public] if self.market_public else []
        where += ["--hosts-public", self.hosts_public] if self.hosts_public else []
        where += ["--data-dir", str(self.data), "--metrics", self.metrics_address]
        argv = [*self.inside, program("usance-coordinator"), "run", *where]
        pace = ["--beat-interval-ms", str(_BEAT_MS), "--reconnect-window-ms", str(self.window_ms)]
        log = self.folder / "coordinator.log"
        self._coordinator = spawn([*argv, *pace, *self._database_flags], log=log)
        return self._coordinator

    def kill_coordinator(self) -> None:
        """SIGKILL, as a power cut would."""
        _kill(self.coordinator)

    @property
    def coordinator(self) -> "subprocess.Popen[bytes]":
        assert self._coordinator is not None
        return self._coordinator

    # People

    def open_account(self, name: str, *roles: str, deposit: str = "") -> None:
        """By the client itself: to start a program for each step takes ten times as much work."""
        from cli.model import Role
        from runtime.ids import new_uuid

        async def make(operator: "Market") -> str:
            as_roles = tuple(Role[role.upper()] for role in roles)
            await operator.create_account(name, as_roles, str(new_uuid()))
            if deposit:
                await operator.deposit(name, int(deposit) * 1_000_000, "to begin with", str(new_uuid()))
            return (await operator.create_token(name, 0, str(new_uuid()))).token

        self._tokens[name] = self.ask(OPERATOR, make)

    def environment(self, person: str) -> dict[str, str]:
        """What makes `usance` speak as that person."""
        return {
            **os.environ,
            "USANCE_SERVER": self.market_address,
            "USANCE_CA": str(self.data / "ca.pem"),
            "USANCE_TOKEN": self._tokens[person],
            "USANCE_PROFILE_FILE": str(self.folder / "no-profile.toml"),
        }

    def usance(self, person: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the real command; an exit code other than 0 is an error here."""
        done = subprocess.run(
            [program("usance"), *arguments],
            env=self.environment(person),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        if done.returncode != 0:
            raise RuntimeError(f"usance {' '.join(arguments)} exits {done.returncode}: {done.stderr}")
        return done

    def usance_json(self, person: str, *arguments: str) -> dict[str, Any]:
        answer = json.loads(self.usance(person, *arguments, "--json").stdout)
        assert isinstance(answer, dict)
        return answer

    def ask(self, person: str, question: "Callable[[Market], Awaitable[_Result]]") -> _Result:
        """Put a question by the client itself: what a test asks often need not start a program.

        In a thread of its own: whoever is interrupted while he waits is so here, and never within gRPC, whose
        memory that has cost.
        """
        from cli.client.market import open_market

        answer: Future[_Result] = Future()

        async def put() -> _Result:
            async with open_market(self.connection(person)) as market:
                return await question(market)

        def work() -> None:
            try:
                answer.set_result(asyncio.run(put()))
            except BaseException as error:  # noqa: BLE001 - raised where the answer is awaited
                answer.set_exception(error)

        threading.Thread(target=work, name="ask", daemon=True).start()
        return answer.result()

    def until(
        self,
        person: str,
        holds: "Callable[[Market], Awaitable[bool]]",
        what: str,
        deadline_s: float = 20,
    ) -> None:
        """Ask by one connection until it holds: a new one for each look takes more work than the look."""

        async def look(market: "Market") -> None:
            try:
                async with asyncio.timeout(deadline_s):
                    while not await holds(market):  # noqa: ASYNC110 - nobody tells
                        await asyncio.sleep(0.05)
            except TimeoutError:
                raise TimeoutError(f"waited {deadline_s} s in vain: {what}") from None

        self.ask(person, look)

    def connection(self, person: str) -> "Connection":
        """What a client of this person's needs."""
        from cli.connection import Connection

        return Connection(
            target=self.market_address,
            authority_pem=(self.data / "ca.pem").read_bytes(),
            token=self._tokens[person],
        )

    # Agents

    def add_agent(self, name: str, seller: str, terms: AgentTerms) -> None:
        """Enrol a machine for the seller, and start its agent."""
        from runtime.ids import new_uuid

        agent = _Agent(seller=seller, folder=self.folder / f"agent-{name}", terms=terms)
        agent.folder.mkdir(mode=0o700, exist_ok=True)
        agent.config.write_text(terms.settings(agent.state))
        self._agents[name] = agent
        token = self.ask(seller, lambda market: market.create_enrolment_token(str(new_uuid()))).token
        self.agent_command(name, "enroll", "-", typed=token)
        self.start_agent(name)

    def agent_command(self, name: str, command: str, *arguments: str, typed: str = "") -> str:
        """What another command of the agent's says on its machine."""
        agent = self._agents[name]
        ours = [program("usance-agent"), command, "--config", str(agent.config), *arguments]
        argv = [*agent.terms.inside, *ours]
        done = subprocess.run(argv, input=typed, text=True, check=False, capture_output=True, timeout=RUN_S)
        if done.returncode != 0:
            raise RuntimeError(f"usance-agent {command} exits {done.returncode}: {done.stderr}")
        return done.stdout

    def start_agent(self, name: str) -> None:
        """Return when the coordinator has it online."""
        agent, process = self._agents[name], self.spawn_agent(name)

        async def online(seller: "Market") -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"agent {name} ended at once:\n{self.log(f'agent-{name}')}")
            hosts = await seller.list_hosts()
            return any(host.state == "ONLINE" and host.host_id == self.host_id(name) for host in hosts)

        self.until(agent.seller, online, f"agent {name} is online")

    def spawn_agent(self, name: str) -> "subprocess.Popen[bytes]":
        """One that may not be ready yet."""
        agent = self._agents[name]
        argv = [*agent.terms.inside, program("usance-agent"), "run", "--config", str(agent.config)]
        agent.process = spawn(argv, log=self.folder / f"agent-{name}.log")
        return agent.process

    def state_of(self, name: str) -> Path:
        return self._agents[name].state

    def agent(self, name: str) -> "subprocess.Popen[bytes]":
        process = self._agents[name].process
        assert process is not None
        return process

    def runs_of(self, name: str) -> Path:
        """Where an agent and its supervisors keep what they run."""
        return self._agents[name].state / "runs"

    def host_id(self, name: str) -> str:
        identity = json.loads((self._agents[name].state / "identity.json").read_text())
        return str(identity["host_id"])

    def signal_agent(self, name: str, number: signal.Signals) -> None:
        self.agent(name).send_signal(number)

    def kill_agent(self, name: str) -> None:
        _kill(self.agent(name))

    def log(self, name: str) -> str:
        """What a process wrote: `coordinator`, `agent-NAME`."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # The end

    def stop(self) -> None:
        """End everything, in good order where that still goes, and remove the folder."""
        self._let_runs_leave()
        for process in [*(agent.process for agent in self._agents.values()), self._coordinator]:
            if process is not None:
                stop_process(process)
        wait_until(self._has_killed_all, "the last processes are gone")
        for agent in self._agents.values():
            _remove_containers(agent)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _has_killed_all(self) -> bool:
        left = list(self.processes())
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    def _let_runs_leave(self) -> None:
        """Cancel what still runs, so that agents clear it away themselves, containers and all."""
        if not any(self._holds_runs(agent) for agent in self._agents.values()):
            return
        with suppress(Exception):  # whatever is broken, what follows ends it by force
            for person in self._tokens:
                self.ask(person, _cancel_live_jobs)
            wait_until(
                lambda: not any(self._holds_runs(agent) for agent in self._agents.values()),
                "the agents have cleared their runs away",
                deadline_s=_LEAVE_S,
            )

    def _holds_runs(self, agent: _Agent) -> bool:
        attempts = agent.state / "attempts"
        running = agent.process is not None and agent.process.poll() is None
        return running and attempts.exists() and any(attempts.iterdir())

    def processes(self) -> Iterator[int]:
        """Every process from our folder: by its arguments, its environment, or where it works.

        What is ours is told by this alone, not by what we remember of it: an interruption may come when a
        process has begun and nobody has been told of it yet.
        """
        return marked_by(self.folder)

    @property
    def data(self) -> Path:
        return self.folder / "coordinator"

    @property
    def _database_flags(self) -> list[str]:
        return ["--database", self.database] if self.database else []


def _remove_containers(agent: _Agent) -> None:
    """What an agent that was killed has left in the engine."""
    identity = agent.state / "identity.json"
    if not agent.terms.docker_host or not identity.exists():
        return
    label = f"{LABEL_HOST}={json.loads(identity.read_text())['host_id']}"
    with closing(docker.DockerClient(base_url=agent.terms.docker_host)) as client:
        for container in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
            with suppress(docker.errors.NotFound):
                container.remove(force=True, v=True)


async def _cancel_live_jobs(market: "Market") -> None:
    from cli.errors import Refused
    from runtime.ids import new_uuid

    with suppress(Refused):  # not everybody is a buyer, and a job may end by itself
        async for job in market.list_jobs(live_only=True):
            await market.cancel_job(job.job_id, str(new_uuid()))


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
