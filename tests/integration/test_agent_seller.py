"""What a seller does at the machine, with a real agent that runs."""

import asyncio
import json
import os
import socket
import tarfile
from pathlib import Path

import pytest

from agent.__main__ import main
from agent.commands import Exit
from tests.rig.parts import wait_until
from tests.support.agent_process import AgentProcess, job_processes, supervisors
from tests.support.fake_coordinator import SECRET, FakeCoordinator, desired_attempt
from usance.v1 import host_pb2, types_pb2

SETTINGS = """
state_dir = "{state}"
executor = "process"
allow_process_executor = true
gpus = {gpus}
[prices]
"*" = "0.50"
[simulated_gpus]
count = 2
"""
CANARY = "canary-77c0ffee"
SLOWLY = "while :; do sleep 0.05; done"


class Desk:
    """The seller's commands, in this process."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._config = config
        self._capsys = capsys

    async def __call__(self, *words: str, expect: Exit | None = Exit.OK) -> str:
        self._capsys.readouterr()
        code = await asyncio.to_thread(main, [words[0], "--config", str(self._config), *words[1:]])
        told = self._capsys.readouterr()
        assert expect in (None, code), told.out + told.err
        return told.out + told.err


def test_a_seller_at_the_machine_from_price_to_uninstall(tmp_path, capsys):
    state, config = tmp_path / "state", tmp_path / "agent.toml"
    desk = Desk(config, capsys)

    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        uuids = [gpu.uuid for gpu in coordinator.hellos[0].facts.gpus]
        coordinator.standing.earned_micro = 1_234_567
        coordinator.standing.attempt_count = 3

        taken = coordinator.want(
            desired_attempt("sh", "-c", SLOWLY, gpu_uuids=(uuids[0],), env={"TOKEN": CANARY})
        )
        await coordinator.until(lambda: taken.last.run_ms > 0, "the job runs")
        shown = json.loads(await desk("status", "--json"))
        assert [gpu["attempt_id"] for gpu in shown["now"]["gpus"]] == ["attempt_1", ""]
        assert (shown["now"]["connected"], shown["market"]["earned_micro"]) == (True, 1_234_567)
        text = await desk("status")
        assert "link      up" in text
        assert "today     1.234567 credits by 3 attempts" in text

        await desk("pause")
        await desk("resume")
        assert "draining" in await desk("reclaim")
        await desk("drain", "--within", "0", expect=Exit.FAILED)
        pause, sell = host_pb2.SELLER_WISH_PAUSE, host_pb2.SELLER_WISH_SELL
        assert coordinator.wishes == [pause, sell, host_pb2.SELLER_WISH_RECLAIM, pause]

        await desk("price", "SIMULATED GPU", "0.75")
        await coordinator.until(lambda: len(coordinator.hellos) == 2, "the new price is told")
        assert [p.gpu_hour_price_micro for p in coordinator.hellos[1].terms.prices] == [750_000]
        assert "0.75 an hour  SIMULATED GPU" in await desk("price")
        assert "six decimals" in await desk("price", "SIMULATED GPU", "much", expect=Exit.USAGE)
        await desk("price", "SIMULATED GPU", "0")
        await coordinator.until(lambda: len(coordinator.hellos) == 3, "it is not for sale any more")
        assert list(coordinator.hellos[2].terms.prices) == []
        assert "not for sale  SIMULATED GPU" in await desk("price", "SIMULATED GPU")

        config.write_text(SETTINGS.format(state=state, gpus=json.dumps(uuids[:1])))
        await desk("reload")
        await coordinator.until(lambda: len(coordinator.hellos) == 4, "the choice of GPUs is told")
        told = coordinator.hellos[3].facts.gpus
        assert [gpu.health for gpu in told] == [types_pb2.GPU_HEALTH_HEALTHY, types_pb2.GPU_HEALTH_DEGRADED]
        assert told[1].health_reason == "its owner does not offer it"

        bundle = tmp_path / "bundle.tar.gz"
        # Tests may keep their files in memory, which it finds bad.
        assert "isolation" in await desk("doctor", "--bundle", str(bundle), expect=None)
        key = (state / "key.pem").read_text()
        with tarfile.open(bundle) as archive:
            texts = [archive.extractfile(member).read().decode() for member in archive]  # type: ignore[union-attr]
        assert len(texts) == 5
        # The host's key, how it came by it, and what the job of a stranger was told.
        secrets = [*key.splitlines(), SECRET, CANARY]
        assert [secret for secret in secrets if any(secret in text for text in texts)] == []

        await desk("uninstall", "--yes", expect=Exit.FAILED)
        assert job_processes(state, "attempt_1.1")
        await desk("uninstall", "--yes", "--end-jobs")
        assert not state.exists()
        assert not job_processes(state, "attempt_1.1")
        assert await agent.ended() == 0

    async def whole() -> None:
        coordinator = FakeCoordinator()
        await coordinator.start()
        config.write_text(SETTINGS.format(state=state, gpus="[]"))
        agent = AgentProcess(state, ("--config", str(config)))
        try:
            await agent.enroll(coordinator.token)
            await agent.start()
            await coordinator.until(lambda: bool(coordinator.hellos), "the agent says hello")
            await story(coordinator, agent)
            assert coordinator.faults == []
            assert "Traceback" not in agent.log_text()
        except BaseException:
            print(agent.log_text())
            raise
        finally:
            if state.exists():
                await agent.clear_up()
                await asyncio.to_thread(wait_until, lambda: not supervisors(state), "all is gone")
            await coordinator.stop()

    asyncio.run(whole())


def test_it_is_ready_though_the_coordinator_is_not(tmp_path):
    """As at a boot: systemd hears that what runs is looked after, and that the agent goes on."""
    told = tmp_path / "notify"

    async def whole() -> None:
        coordinator = FakeCoordinator()
        await coordinator.start()
        systemd = {"NOTIFY_SOCKET": str(told), "WATCHDOG_USEC": "200000"}
        agent = AgentProcess(tmp_path / "state", env={**os.environ, **systemd})
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.bind(str(told))
            listening.settimeout(60)
            try:
                await agent.enroll(coordinator.token)
                await coordinator.stop()
                await agent.start()
                heard = [await asyncio.to_thread(listening.recv, 1_000) for _ in range(3)]
                assert heard[0].startswith(b"READY=1\nSTATUS=host host_test, 2 GPUs")
                assert heard[1:] == [b"WATCHDOG=1", b"WATCHDOG=1"]
                assert await agent.terminate() == 0
            finally:
                await agent.clear_up()

    asyncio.run(whole())
