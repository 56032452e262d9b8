"""The line between a seller's machine and the market is cut, and neither is told so.

The agent lives in a network namespace of its own, and its jobs in the real engine. Shorter than the reconnect
window, a cut changes nothing but the time of the news; a longer one ends what runs at the time for which it
is paid, by what is on the machine alone.
"""

import json
import re
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from cli.client.market import Market
from cli.exits import Exit
from cli.model import Bill, Job
from cli.verify import verify_bill
from tests.e2e.test_job import check_bill
from tests.rig.dockerd import Engine
from tests.rig.fixtures import parts_needed
from tests.rig.images import TINY, tiny_image
from tests.rig.parts import wait_until
from tests.support.agent_terms import AgentTerms
from tests.support.market import OPERATOR, WholeMarket
from tests.support.nets import HUB, Wire, joined
from tests.support.running_usance import Running
from tests.support.through import answered_inside

pytestmark = [pytest.mark.docker, pytest.mark.slow]

WINDOW_MS = 8_000
# It numbers its lines until it finds a file, and says when it ran by a clock that nobody sets.
COUNTING = """
read now rest < /proc/uptime; echo "from $now" >&2
i=0; until test -e /tmp/go; do i=$((i+1)); echo line $i; sleep 0.02; done
read now rest < /proc/uptime; echo "to $now" >&2; echo "lines $i" >&2
exit 7
"""


@contextmanager
def far_market(folder: Path, engine: Engine, window_ms: int):
    """A market whose one machine is at the end of a line, and the line."""
    market = WholeMarket(folder, window_ms=window_ms)
    ports = {
        where: f"{HUB}:{where.rpartition(':')[2]}" for where in (market.market_address, market.hosts_address)
    }
    market.market_public, market.hosts_public = ports.values()
    with ExitStack() as stack:
        with parts_needed():
            net = stack.enter_context(joined(["one"]))
        places = {public: where for where, public in ports.items()}
        stack.enter_context(answered_inside(net.hub.namespace, places))
        line = net.wires["one"]
        try:
            market.start()
            market.open_account("buyer", "buyer", deposit="100")
            market.open_account("seller", "seller")
            terms = AgentTerms(
                executor="docker",
                docker_host=engine.base_url,
                simulated_gpus=2,
                price="1",
                inside=line.machine.inside,
            )
            market.add_agent("one", "seller", terms)
            yield market, line
        except BaseException:
            print(market.log("coordinator")[-5_000:], market.log("agent-one")[-5_000:])
            raise
        finally:
            line.mend()
            market.stop()


def start(market: WholeMarket, name: str) -> Running:
    how = ("--name", name, "--budget", "10", "--image", TINY, "--grace", "1s", "--on-host-loss", "fail")
    return Running(market, "buyer", "run", "-y", *how, "--", "sh", "-c", COUNTING, name)


def container(client: docker.DockerClient, name: str) -> dict[str, Any]:
    """What the engine knows of a job's container."""
    found: list[dict[str, Any]] = [
        client.api.inspect_container(each["Id"]) for each in client.api.containers(all=True)
    ]
    (mine,) = [each for each in found if each["Config"]["Cmd"][-1] == name]
    return mine


def has_ended(client: docker.DockerClient, name: str) -> Callable[[], bool]:
    return lambda: container(client, name)["State"]["Status"] == "exited"


def the_job(market: WholeMarket, name: str) -> tuple[Job, Bill]:
    async def ask(client: Market) -> tuple[Job, Bill]:
        (job,) = [job async for job in client.list_jobs() if job.spec.name == name]
        return await client.get_job(job.job_id), await client.get_bill(job.job_id)

    return market.ask("buyer", ask)


def check_kept(job: Job, bill: Bill, run: Running) -> None:
    """Lines and bill are what they would have been."""
    told = dict(re.findall(r"^(from|to|lines) ([\d.]+)$", run.err, re.MULTILINE))
    assert run.out == b"".join(f"line {n}\n".encode() for n in range(1, int(told["lines"]) + 1))
    check_bill(job, bill, run_ms=round(1_000 * (float(told["to"]) - float(told["from"]))))


def test_a_cut_changes_the_time_of_the_news_or_ends_what_is_not_paid(
    tmp_path, docker_engine: Engine, docker_client
):
    tiny_image(docker_client)
    with far_market(tmp_path / "m", docker_engine, WINDOW_MS) as (market, line):
        short, long = runs = [start(market, name) for name in ("short", "long")]
        try:
            for run in runs:
                run.until_line("line 1")
            check_unharmed(market, line, docker_engine, docker_client, short)
            check_outlasted(market, line, docker_client, long)
        finally:
            for run in runs:
                run.kill()


def check_unharmed(
    market: WholeMarket, line: Wire, engine: Engine, client: docker.DockerClient, run: Running
) -> None:
    """A cut, shorter than the window."""
    line.cut(up=True, down=True)
    engine.touch(container(client, "short")["Id"], "/tmp/go")
    wait_until(has_ended(client, "short"), "it ends while nobody hears of it")
    assert the_job(market, "short")[0].state == "RUNNING"
    line.mend()
    assert run.end() == 7, run.err
    check_kept(*the_job(market, "short"), run)


def check_outlasted(market: WholeMarket, line: Wire, client: docker.DockerClient, run: Running) -> None:
    """A second cut, longer than the window."""
    line.cut(up=True, down=True)
    wait_until(has_ended(client, "long"), "it is stopped by its own machine", deadline_s=30)
    (attempt,) = the_job(market, "long")[0].attempts
    folder = market.runs_of("one") / f"{attempt.attempt_id}.1"
    wait_until((folder / "exit.json").exists, "and that is noted")
    control, end = (json.loads((folder / name).read_text()) for name in ("control.json", "exit.json"))
    assert end["stopped"] == "paid_through"
    assert end["run_ms"] >= control["paid_through_ms"]
    assert run.end() == Exit.HOST_LOST, run.err
    _, bill = the_job(market, "long")
    assert verify_bill(bill).problems == ()
    line.mend()
    # Its own next try may be ten seconds away.
    market.kill_agent("one")
    market.start_agent("one")
    wait_until(lambda: not client.api.containers(all=True), "the machine has cleared it away")
    # Each of its parts has gone back, for it was the host's fault.
    assert bill.credited_micro == bill.charged_micro
    assert market.ask(OPERATOR, lambda client: client.run_audit()).violations == ()
