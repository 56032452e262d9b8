"""The unit that is shipped, under a real systemd, with a real engine: its cage lets the agent work.

And what it promises of starting, reloading, hanging and stopping is so.
"""

import asyncio
import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_agent import check_complete, numbered
from tests.integration.test_agent_docker import CONTAINER, COUNTING
from tests.rig.dockerd import Engine
from tests.rig.fixtures import parts_needed
from tests.rig.images import TINY, tiny_image
from tests.rig.parts import wait_until
from tests.rig.systemd import SHARED, Systemd, running_systemd
from tests.support.agent_process import REPOSITORY
from tests.support.fake_coordinator import FakeCoordinator, desired_attempt
from usance.v1 import types_pb2

pytestmark = [pytest.mark.docker, pytest.mark.slow]

UNIT = "usance-agent.service"
SETTINGS = f"""
region = "%s"
docker_host = "unix://{SHARED}/engine/docker.sock"
local_images = true
disk_reserve_gb = 0
[prices]
"*" = "0.50"
[simulated_gpus]
count = 2
"""
PYTHON = f"{SHARED}/python/bin/{Path(sys.executable).resolve().name}"
ENVIRONMENT = (
    f"PYTHONHOME={SHARED}/python",
    f"PYTHONPATH={SHARED}/source:{SHARED}/source/proto:{SHARED}/packages",
)
# Its program is not where a package would put it, and a test waits for less long. Nothing else is changed.
OVERRIDES = f"""
[Service]
Environment={" ".join(ENVIRONMENT)} PYTHONDONTWRITEBYTECODE=1
ExecStart=
ExecStart={PYTHON} -m agent run
RestartSec=0
WatchdogSec=3
"""


@pytest.fixture
def machine(docker_engine: Engine) -> Iterator[Systemd]:
    units = {
        UNIT: (REPOSITORY / "packaging" / UNIT).read_text(),
        f"{UNIT}.d/test.conf": OVERRIDES,
    }
    shared = {
        "source": REPOSITORY,
        "python": Path(sys.base_prefix),
        "packages": Path(sysconfig.get_path("purelib")),
        "engine": docker_engine.path,
    }
    with parts_needed(), running_systemd(units, shared) as made:
        yield made


def test_the_unit_keeps_its_promises(machine: Systemd, docker_engine: Engine, docker_client):
    tiny_image(docker_client)

    async def act(what: str) -> None:
        done = await asyncio.to_thread(machine.run, "systemctl", what, UNIT)
        assert done.returncode == 0, done.stderr

    async def story(coordinator: FakeCoordinator) -> None:
        machine.file("/etc/usance").mkdir()
        settings = machine.file("/etc/usance/agent.toml")
        settings.write_text(SETTINGS % "here")
        enroll = ["env", *ENVIRONMENT, PYTHON, "-m", "agent", "enroll", coordinator.token]
        assert (await asyncio.to_thread(machine.run, *enroll)).returncode == 0

        await act("start")
        told = machine.ask(UNIT, "ActiveState", "StatusText", "NRestarts")
        assert told == {"ActiveState": "active", "StatusText": "host host_test, 2 GPUs", "NRestarts": "0"}
        assert machine.file("/var/lib/usance").stat().st_mode & 0o777 == 0o700
        await coordinator.until(lambda: len(coordinator.hellos) == 1, "the agent says hello")
        wanted = desired_attempt("sh", "-c", COUNTING, image=TINY, isolation=CONTAINER)
        taken = coordinator.want(wanted)
        await coordinator.until(lambda: bool(taken.stdout), "the job runs")

        settings.write_text(SETTINGS % "there")
        await act("reload")
        await coordinator.until(lambda: coordinator.hellos[-1].facts.region == "there", "it has read again")

        # An upgrade: whatever stands beside the job stays.
        (supervisor,) = (pid for pid in machine.pids(UNIT) if _name(pid) == "usance-run")
        first = coordinator.hellos[-1].instance
        await act("restart")
        await coordinator.until(lambda: coordinator.hellos[-1].instance != first, "another agent is there")

        second = coordinator.hellos[-1].instance
        await asyncio.to_thread(machine.run, "kill", "-STOP", machine.ask(UNIT, "MainPID")["MainPID"])
        await coordinator.until(
            lambda: coordinator.hellos[-1].instance != second, "the stuck one is replaced"
        )

        await act("stop")
        assert machine.ask(UNIT, "ActiveState") == {"ActiveState": "inactive"}
        assert machine.pids(UNIT) == {supervisor}
        docker_engine.touch(docker_client.api.containers()[0]["Id"], "/tmp/go")
        await asyncio.to_thread(wait_until, lambda: not machine.pids(UNIT), "the job has ended alone")
        await act("start")
        await coordinator.until(lambda: taken.complete, "its end is told")
        last = check_complete(taken)
        assert (last.exit_code, last.end_reason) == (7, types_pb2.END_REASON_EXITED)
        assert bytes(taken.stdout) == numbered(int(taken.stderr))
        assert len({report.container_id for report in taken.reports if report.container_id}) == 1

        said = await asyncio.to_thread(_journal, machine)
        assert said["agent.link.client: connected as host host_test"] == "6"
        assert any("Watchdog timeout" in text for text in said)

        settings.write_text("reegion = 1\n")
        assert (await asyncio.to_thread(machine.run, "systemctl", "restart", UNIT)).returncode != 0
        state = machine.ask(UNIT, "ActiveState", "ExecMainStatus")
        assert state == {"ActiveState": "failed", "ExecMainStatus": "2"}

    async def whole() -> None:
        coordinator = FakeCoordinator()
        await coordinator.start()
        try:
            await story(coordinator)
        except BaseException:
            print(_journal(machine))
            raise
        finally:
            await coordinator.stop()
        assert coordinator.faults == []

    asyncio.run(whole())


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _journal(machine: Systemd) -> dict[str, str]:
    """What it has of the unit: each line, and how grave it is."""
    told = machine.run("journalctl", f"--unit={UNIT}", "--output=json").stdout
    entries = [json.loads(line) for line in told.splitlines()]
    return {entry["MESSAGE"]: entry["PRIORITY"] for entry in entries}
