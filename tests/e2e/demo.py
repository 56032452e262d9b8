"""`make demo`: the main job of the market, end to end, on this machine, with its real programs.

It starts everything it needs, shows what a buyer, a seller and the operator see, and leaves nothing behind,
also when it is interrupted.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import docker
import pynvml
from docker.errors import DockerException, ImageNotFound

from tests.rig.images import TINY, tiny_image
from tests.support.agent_terms import AgentTerms
from tests.support.market import OPERATOR, WholeMarket, program

PING_S = 2
DEPOSIT, BUDGET, PRICE = "10", "1", "0.45"
SCRIPT = """\
echo "hello from $(hostname)"
echo "my GPU: ${USANCE_SIMULATED_GPUS:-$CUDA_VISIBLE_DEVICES$NVIDIA_VISIBLE_DEVICES}"
for step in 1 2 3 4; do echo "step $step of 4"; sleep 1; done
echo "a word on stderr" >&2
"""


class Interrupted(BaseException):
    """Ctrl-C, or a polite end from outside."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A Docker Engine that answers, and the image that the demo's job runs in."""

    host: str
    name: str
    image: str
    has_nvidia: bool


class Demo:
    """Says what it shows, and shows it by the commands that a person would type."""

    def __init__(self, market: WholeMarket, engine: Engine | None, gpu_count: int) -> None:
        self._market = market
        self._engine = engine
        self._gpu_count = gpu_count
        self._step = 0

    def play(self) -> int:
        """Returns 0 when everything came out as it should."""
        self._machine()
        self._people()
        self._seller()
        code = self._buyer()
        good = self._books()
        return 0 if code == 0 and good else 1

    def _machine(self) -> None:
        self._heading("The operator starts a coordinator")
        self._market.start()
        _say(f"It keeps jobs and ledger in one SQLite file in {self._market.folder}")
        _say(f"and serves people at {self._market.market_address}, machines at {self._market.hosts_address}.")
        if self._engine:
            _say(f"{self._engine.name} answers: the job gets a hardened container.")
        else:
            _say("No Docker Engine answers: the job runs as a plain process, WITHOUT isolation. Such a host")
            _say("serves only its own account and those that its seller trusts; here it trusts the buyer.")

    def _people(self) -> None:
        self._heading("The operator opens accounts")
        _say(f"A buyer, who gets {DEPOSIT} credits, and a seller. Everybody's balances before:")
        self._market.open_account("buyer", "buyer", deposit=DEPOSIT)
        self._market.open_account("seller", "seller")
        self._show(OPERATOR, "admin", "accounts")

    def _seller(self) -> None:
        self._heading("The seller enrols this machine")
        _say(
            "Its agent dials out and needs no open port. Its GPU is SIMULATED: it does not exist, everything"
        )
        _say("else is real.")
        terms = AgentTerms(
            executor="docker" if self._engine else "process",
            docker_host=self._engine.host if self._engine else "",
            price=PRICE,
            simulated_gpus=0 if self._gpu_count else 1,
            trusted_accounts=("buyer",),
        )
        self._market.add_agent("demo", "seller", terms)
        self._show("seller", "hosts")

    def _buyer(self) -> int:
        wanted = ["--gpu", "any:1"] if self._gpu_count else ["--gpu", "rtx4090:1", "--simulated"]
        wanted += ["--budget", BUDGET]
        wanted += ["--image", self._engine.image] if self._engine else ["--isolation", "process"]
        self._heading("The buyer looks at what is to be had, and asks for a price")
        self._show("buyer", "offers")
        self._show("buyer", "quote", *wanted, "--", "sh", "-c", "...")
        self._heading("The buyer runs a job")
        _say("Its own output appears as it is written. Lines that begin with 'usance:' tell how it gets on,")
        _say("with each usage record as it is billed.")
        code = self._run(*wanted, "--name", "demo", "--grace", "1s", "-v", "-y", "--", "sh", "-c", SCRIPT)
        _say(f"`usance run` exits with the job's own exit code: {code}")
        return code

    def _books(self) -> bool:
        self._heading("The bill, computed again from its evidence by the buyer's own machine")
        good = self._show("buyer", "bill", "@last", "--verify")
        self._heading("The books")
        _say("Everybody's balances after; the operator's earnings are the fee in the trial balance.")
        self._show(OPERATOR, "admin", "accounts")
        good &= self._show(OPERATOR, "admin", "trial-balance")
        good &= self._show(OPERATOR, "admin", "audit")
        return good

    def _heading(self, text: str) -> None:
        self._step += 1
        title = f"{self._step}. {text}"
        print(f"\n{title}\n{'-' * len(title)}", flush=True)

    def _show(self, person: str, *arguments: str) -> bool:
        """Type a command as that person, and show what it prints."""
        _echo(person, arguments)
        process = self._start(person, *arguments)
        return _wait(process) == 0

    def _run(self, *arguments: str) -> int:
        _echo("buyer", ["run", *arguments])
        return _wait(self._start("buyer", "run", *arguments))

    def _start(self, person: str, *arguments: str) -> subprocess.Popen[bytes]:
        # In a session of its own, so that Ctrl-C is ours to handle.
        return subprocess.Popen(
            [program("usance"), *arguments],
            env=self._market.environment(person),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def main() -> int:
    begin = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    print("Usance: a paid job, end to end. Everything here is real, but for what says SIMULATED.")
    try:
        with docker_engine() as engine:
            # Nothing is made here yet: the market makes its folder, and what it has made it takes away.
            market = WholeMarket(Path(tempfile.gettempdir(), f"usance-demo-{os.urandom(6).hex()}"))
            try:
                try:
                    code = Demo(market, engine, _nvidia_gpus(engine)).play()
                finally:
                    # Should the one interruption come right here, it is over when the market is stopped.
                    _ignore_interruptions()
            finally:
                print("\nStopping everything that was started ...", flush=True)
                market.stop()
    except Interrupted:
        print("\nInterrupted. Nothing is left: no process, no container, no file.", flush=True)
        return 130
    taken_s = int(time.monotonic() - begin)
    print(f"\nAll stopped after {taken_s} s. Nothing is left: no process, no container, no file.")
    return code


@contextmanager
def docker_engine() -> Iterator[Engine | None]:
    """The engine of this machine with a tiny image, if one answers; an image made here is removed again."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    try:
        client = docker.DockerClient(base_url=host, timeout=PING_S)
        client.ping()
    except DockerException:
        yield None
        return
    client.api.timeout = 60
    made = not _has_image(client)
    try:
        image = tiny_image(client)
        found = client.info()
        has_nvidia = "nvidia" in found.get("Runtimes", {}) or bool(found.get("DiscoveredDevices"))
        yield Engine(
            host=host, name=f"Docker Engine {found['ServerVersion']}", image=image, has_nvidia=has_nvidia
        )
    finally:
        if made:
            with suppress(ImageNotFound):
                client.images.remove(TINY, force=True)
        client.close()


def _nvidia_gpus(engine: Engine | None) -> int:
    """How many there are that a job here could be given."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount()) if engine is None or engine.has_nvidia else 0
    finally:
        pynvml.nvmlShutdown()


def _has_image(client: docker.DockerClient) -> bool:
    try:
        client.images.get(TINY)
    except ImageNotFound:
        return False
    return True


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait()
    except Interrupted:
        process.terminate()  # it detaches; whoever stops the market cancels the job
        process.wait()
        raise


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """There is one interruption: a second Ctrl-C must not leave half of it behind."""
    _ignore_interruptions()
    raise Interrupted


def _ignore_interruptions() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _echo(person: str, arguments: "list[str] | tuple[str, ...]") -> None:
    shown = [word if "\n" not in word else "..." for word in arguments]
    print(f"\n{person}$ usance {shlex.join(shown)}", flush=True)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # What was being asked when we were interrupted is asked by a thread that nobody waits for.
    os._exit(code)
