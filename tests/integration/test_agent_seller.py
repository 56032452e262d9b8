"""What a seller does at the machine, with a real agent that runs."""

import asyncio
import json
import tarfile
from pathlib import Path

import pytest

from agent.__main__ import main
from agent.commands import Exit
from tests.rig.parts import wait_until
from tests.support.agent_process import AgentProcess, job_processes, supervisors
from tests.support.fake_coordinator import FakeCoordinator, desired_attempt
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
SLOWLY = "while :; do sleep 0.05; done"


class Desk:
    """The seller's commands, in this process."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._config = config
        self._capsys = capsys

    async def __call__(self, *words: str, expect: Exit = Exit.OK) -> str:
        self._capsys.readouterr()
        code = await asyncio.to_thread(main, [words[0], "--config", str(self._config), *words[1:]])
        told = self._capsys.readouterr()
        assert code == expect, told.out + told.err
        return told.out + told.err


def test_a_seller_at_the_machine_from_price_to_uninstall(tmp_path, capsys):
    state, config = tmp_path / "state", tmp_path / "agent.toml"
    desk = Desk(config, capsys)

    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        uuids = [gpu.uuid for gpu in coordinator.hellos[0].facts.gpus]
        coordinator.standing.earned_micro = 1_234_567
        coordinator.standing.attempt_count = 3

        taken = coordinator.want(desired_attempt("sh", "-c", SLOWLY, gpu_uuids=(uuids[0],)))
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

        config.write_text(SETTINGS.format(state=state, gpus=json.dumps(uuids[:1])))
        await desk("reload")
        await coordinator.until(lambda: len(coordinator.hellos) == 3, "the choice of GPUs is told")
        told = coordinator.hellos[2].facts.gpus
        assert [gpu.health for gpu in told] == [types_pb2.GPU_HEALTH_HEALTHY, types_pb2.GPU_HEALTH_DEGRADED]
        assert told[1].health_reason == "its owner does not offer it"

        bundle = tmp_path / "bundle.tar.gz"
        # The certificate that the tests' authority gives ends today.
        told_ill = await desk("doctor", "--bundle", str(bundle), expect=Exit.FAILED)
        assert "bad    certificate" in told_ill
        key = (state / "key.pem").read_text()
        with tarfile.open(bundle) as archive:
            texts = [archive.extractfile(member).read().decode() for member in archive]  # type: ignore[union-attr]
        assert len(texts) == 5
        assert not any(line in text for text in texts for line in key.splitlines())

        await desk("uninstall", "--yes", expect=Exit.FAILED)
        assert job_processes("attempt_1.1")
        await desk("uninstall", "--yes", "--end-jobs")
        assert not state.exists()
        assert not job_processes("attempt_1.1")
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
