"""SIGKILL in the middle of everything: what was acknowledged is there, and the bill is right."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.settings import Settings
from runtime.channel import open_channel
from runtime.clock import SystemClock
from tests.rig.parts import free_port, spawn, wait_until
from tests.support.market import program
from tests.support.running_coordinator import MovedClock, Person, Running, copy_of
from tests.support.scripted_agent import ScriptedAgent
from tests.support.scripts import all_of, read_logs
from usance.v1 import types_pb2 as t


class Process:
    """The coordinator as a program."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        flags = ["--data-dir", str(settings.data_dir), "--market", settings.market, "--hosts", settings.hosts]
        flags += ["--beat-interval-ms", "500", "--reconnect-window-ms", "30000"]
        flags += ["--database", settings.database] if settings.database else []
        told = self._told()
        self._process: subprocess.Popen[bytes] = spawn(
            [program("usance-coordinator"), "run", *flags], log=log
        )
        wait_until(lambda: self._told() > told or self._process.poll() is not None, "it is ready")
        assert self._process.poll() is None, log.read_text()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _told(self) -> int:
        return self.log.read_text().count("ready market=") if self.log.exists() else 0


@contextmanager
def killed_at_last(settings: Settings, log: Path) -> Iterator[list[Process]]:
    """The newest process is last; restarting adds one."""
    processes = [Process(settings, log)]
    try:
        yield processes
    finally:
        processes[-1].kill()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def settings(request: pytest.FixtureRequest, template: Settings, tmp_path: Path) -> Settings:
    if request.param == "sqlite":
        made = copy_of(template, tmp_path / "data")
    else:
        made = request.getfixturevalue("on_postgres")
    return replace(made, market=f"127.0.0.1:{free_port()}", hosts=f"127.0.0.1:{free_port()}")


@pytest.mark.slow
def test_a_job_outlives_kills_of_the_coordinator(settings: Settings, tmp_path: Path) -> None:
    """Killed right after each kind of answer; whatever was answered is known to the next process."""
    clock = SystemClock()

    async def script(market: Running, processes: list[Process]) -> None:
        async def killed() -> None:
            await asyncio.to_thread(processes[-1].kill)
            await agent.over()
            processes.append(await asyncio.to_thread(Process, settings, tmp_path / "log"))
            await agent.connect()

        market.seller = await market.account("seller", t.ROLE_SELLER)
        market.buyer = await market.account("buyer", t.ROLE_BUYER, deposit_micro=10_000_000)
        agent = ScriptedAgent(settings.hosts, await market.identity())
        await agent.connect()
        job = await market.buyer.submit()
        await killed()
        assert (await market.buyer.wallet()).held_micro == 1_000_000
        run = await agent.taken()
        begun_ms = clock.boot_ms()
        await agent.beat(run.runs(0))
        seen_ms = clock.boot_ms()
        await killed()
        assert (await market.buyer.job(job.job_id)).state == t.JOB_STATE_RUNNING
        run_ms = clock.boot_ms() - seen_ms
        await agent.beat(run.runs(run_ms))
        await agent.usage(run, run.record(run_ms))
        await agent.logs(run, run.writes(b"kept"))
        await killed()
        wanted = agent.wanted(run)
        assert wanted is not None
        assert (wanted.usage_number_acknowledged, wanted.log_offset_acknowledged) == (1, 4)
        run_ms = clock.boot_ms() - seen_ms
        await agent.usage(run, *run.records, run.record(run_ms))
        await agent.beat(run.ended())
        witnessed_ms_max = clock.boot_ms() - begun_ms
        ended = await market.buyer.ended(job.job_id)
        await killed()
        assert await market.buyer.job(job.job_id) == ended
        assert ended.state == t.JOB_STATE_SUCCEEDED
        assert run_ms <= ended.charged_micro <= witnessed_ms_max
        assert ended.charged_micro == run_ms, "no gap was longer than the window, so all of it was witnessed"
        output = await all_of(read_logs(market, job.job_id))
        assert (output[0].chunk.chunk.data, output[-1].end.complete) == (b"kept", True)
        await market.audit()
        await agent.leave()

    async def whole(processes: list[Process]) -> None:
        authority_pem = (settings.data_dir / "ca.pem").read_bytes()
        token = (settings.data_dir / "operator.token").read_text().strip()
        async with open_channel(settings.market, authority_pem) as channel:
            operator = Person(channel, token, "operator")
            await script(Running(settings, MovedClock(), channel, operator, authority_pem), processes)

    with killed_at_last(settings, tmp_path / "log") as processes:
        asyncio.run(whole(processes))
