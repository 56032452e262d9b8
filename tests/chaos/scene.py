"""The market that chaos comes over: real programs on machines of their own, and who starts them again.

The coordinator keeps its market on PostgreSQL, behind a line that can be cut. Five agents offer GPUs: two in
containers of one engine, one of these by NVIDIA's library (a stand-in), three in processes.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.clocks import SteppedClock, build_clock
from tests.rig import leftovers
from tests.rig.dockerd import Engine, running_engine
from tests.rig.gpus import FOUR_GPUS
from tests.rig.images import tiny_image
from tests.rig.nvml.build import NvmlStub, build_library
from tests.rig.nvml.state import NvmlState
from tests.rig.parts import Folder, sweep
from tests.rig.postgres import Postgres, running_postgres
from tests.support.agent_terms import AgentTerms
from tests.support.line import Line
from tests.support.market import WholeMarket
from tests.support.nets import HUB, Net, joined

AGENTS = ("cheap", "big", "small", "boxes", "cards")
IN_CONTAINERS = ("boxes", "cards")
# Whose state is on a small disk of its own.
SMALL_DISKS = ("cheap", "small")
SMALL_DISK_MIB, DATABASE_DISK_MIB = 16, 256
BUYERS = ("anna", "ben")
DEPOSIT = 5_000
# How long a silent host is waited for.
WINDOW_MS = 10_000
COORDINATOR, DATABASE = "coordinator", "database"
_KIND = "chaos"


class ChaosMarket(WholeMarket):
    """Its coordinator has an address that its agents reach from their machines, and another for us."""

    def __init__(self, folder: Path, database: str, net: Net, clock: SteppedClock) -> None:
        inside = (*net.hub.inside, "env", *clock.environment)
        super().__init__(folder, database=database, window_ms=WINDOW_MS, inside=inside)
        self.hosts_address = f"{HUB}:{self.hosts_address.rpartition(':')[2]}"
        self.market_address = f"{net.door}:{self.market_address.rpartition(':')[2]}"


@dataclass
class Scene:
    market: ChaosMarket
    net: Net
    postgres: Postgres
    # Between the coordinator and its database.
    line: Line
    engine: Engine
    gpus: NvmlStub
    clocks: Mapping[str, SteppedClock]
    # What is running, by name; whoever has ended is started again, by default at once.
    running: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)
    _away_until_s: dict[str, float] = field(default_factory=dict)
    _later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    # How often each was started anew.
    starts: dict[str, int] = field(default_factory=dict)

    def later(self, delay_s: float, work: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + delay_s, work))

    def stay_away(self, name: str, duration_s: float) -> None:
        """Who ends now is started again later."""
        self._away_until_s[name] = time.monotonic() + duration_s

    def tick(self) -> None:
        """What is due now."""
        now_s = time.monotonic()
        due = [work for at_s, work in self._later if at_s <= now_s]
        self._later = [each for each in self._later if each[0] > now_s]
        for work in due:
            work()
        for name, process in list(self.running.items()):
            if process.poll() is not None and self._away_until_s.get(name, 0) <= now_s:
                self._start(name)

    def heal(self) -> None:
        """Whatever was to end later ends now."""
        for _, work in self._later:
            work()
        self._later.clear()
        self._away_until_s.clear()
        self.line.mend()
        for wire in self.net.wires.values():
            wire.mend()
        for clock in self.clocks.values():
            clock.step(-clock.step_ms)

    def _start(self, name: str) -> None:
        self.starts[name] = self.starts.get(name, 0) + 1
        # As a service manager does it: not at once again, if it ends at once.
        self.stay_away(name, 1.0)
        if name == DATABASE:
            self.postgres.come_back()
            self.running[name] = self.postgres.process
        elif name == COORDINATOR:
            self.running[name] = self.market.spawn_coordinator()
        else:
            self.running[name] = self.market.spawn_agent(name)

    def keep_logs(self, folder: Path) -> None:
        """For whoever is to find out what happened."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in [*self.market.folder.glob("*.log"), *self.engine.path.glob("dockerd.log")]:
            shutil.copy(path, folder)

    def disk_of(self, name: str) -> Path:
        return self.postgres.disk if name == DATABASE else self.market.state_of(name)


@contextmanager
def opened() -> Iterator[Scene]:
    """Raises parts.MissingError where the machine lacks something."""
    sweep(_KIND, _remove)
    home = Folder(_KIND)
    with ExitStack() as stack:
        stack.callback(home.release)
        stack.callback(_remove, home.path)
        net = stack.enter_context(joined(AGENTS, with_door=True))
        engine = stack.enter_context(running_engine())
        with engine.client() as client:
            tiny_image(client)
        gpus = NvmlStub(library=build_library(home.path), state=NvmlState(home.path / "nvml-state"))
        for gpu in FOUR_GPUS[:2]:
            gpus.state.add_gpu(gpu)
        library = build_clock(home.path)
        clocks = {name: SteppedClock(library, home.path / f"clock-{name}") for name in (COORDINATOR, *AGENTS)}
        for clock in clocks.values():
            stack.callback(clock.close)
        postgres = stack.enter_context(running_postgres(durable=True, disk_mib=DATABASE_DISK_MIB))
        postgres.create("market")
        server = socket.create_server((net.here, 0))
        line = Line(f"{postgres.socket_folder}/.s.PGSQL.5432", server)
        stack.callback(line.close)
        url = f"postgresql+psycopg://usance@{net.here}:{server.getsockname()[1]}/market"
        market = ChaosMarket(home.path / "m", url, net, clocks[COORDINATOR])
        stack.callback(market.stop)
        scene = Scene(market, net, postgres, line, engine, gpus, clocks)
        stack.callback(scene.heal)
        try:
            _people_and_machines(scene)
            yield scene
        except BaseException:
            for name in (COORDINATOR, *(f"agent-{name}" for name in AGENTS)):
                print(f"--- {name}\n{market.log(name)[-3_000:]}")
            raise


def _people_and_machines(scene: Scene) -> None:
    market = scene.market
    market.start()
    for name in BUYERS:
        market.open_account(name, "buyer", deposit=str(DEPOSIT))
    market.open_account("seller", "seller")
    nvml = [f"{name}={scene.gpus.env()[name]}" for name in ("LD_LIBRARY_PATH", "USANCE_NVML_STATE")]
    engine = scene.engine.base_url
    offers = {
        "cheap": AgentTerms(price="1800", simulated_gpus=2, trusted_accounts=BUYERS),
        "big": AgentTerms(price="3600", simulated_gpus=4, trusted_accounts=BUYERS),
        "small": AgentTerms(price="2400", simulated_gpus=1, trusted_accounts=BUYERS),
        "boxes": AgentTerms(executor="docker", docker_host=engine, price="7200", simulated_gpus=2),
        "cards": AgentTerms(executor="docker", docker_host=engine, price="5400", simulated_gpus=0),
    }
    for name, terms in offers.items():
        own = nvml if name == "cards" else []
        inside = (*scene.net.wires[name].machine.inside, "env", *scene.clocks[name].environment, *own)
        if name in SMALL_DISKS:
            _small_disk(market.folder / f"agent-{name}" / "state")
        market.add_agent(name, "seller", terms.within(inside))
    scene.running |= {COORDINATOR: market.coordinator, DATABASE: scene.postgres.process}
    scene.running |= {name: market.agent(name) for name in AGENTS}


def _small_disk(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True)
    size = f"size={SMALL_DISK_MIB}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "usance-rig", str(path)], check=True)


def _remove(folder: Path) -> None:
    for mount in leftovers.mounts(folder):
        subprocess.run(["umount", "--lazy", mount], check=True)
    shutil.rmtree(folder, ignore_errors=True)


def fill(folder: Path) -> Callable[[], None]:
    """Leave no byte free on its disk; what is answered makes room again."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        for size in (1 << 20, 4_096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return lambda: path.unlink(missing_ok=True)
