"""The agent's figures over HTTP: a real agent, a real reader."""

import asyncio
import urllib.error
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from agent.cgroups import Cgroups
from agent.domain.attempt import AttemptState
from agent.domain.exposition import Family, Kind, Sample, render
from agent.domain.figures import families
from agent.executor.fake import Script
from agent.observer import Observer
from agent.runner import Runner
from runtime.clock import SystemClock
from runtime.page import Page
from tests.integration.test_agent_runner import Host
from tests.rig.parts import free_port
from tests.support.agent_process import PROCESS_FLAGS, AgentProcess
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.orders import desired


def fetch(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def gathered(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_a_job_comes_into_the_figures_and_goes_out_of_them(tmp_path):
    host = Host(tmp_path)
    groups = tmp_path / "cgroup"
    groups.mkdir()
    (groups / "cgroup.controllers").touch()

    async def story(runner: Runner) -> None:
        assert host.watch is not None
        observer = Observer(
            runner=runner,
            gpus=host.watch,
            cgroups=Cgroups(groups, tmp_path),
            clock=SystemClock(),
            jobs_folder=tmp_path,
        )

        def collect() -> str:
            return render(families(observer.view(host_id="h", version="1", executor="fake", connected=False)))

        metrics = Page(collect)
        _, port = await metrics.start("127.0.0.1", 0)
        try:
            host.world.scripts["a"] = Script(run_ms=None)
            await runner.apply([desired("a", gpu_uuids=("g",))])
            await host.until(lambda: runner.reports()[0].state is AttemptState.RUNNING)
            container = runner.reports()[0].container_id
            (groups / container).mkdir()
            (groups / container / "memory.current").write_text("4096\n")
            (groups / container / "cpu.stat").write_text("usage_usec 1000000\n")
            await observer.pass_once()
            _, text = await asyncio.to_thread(fetch, port)
            figures = gathered(text)
            assert figures["usance_job_memory_bytes"] == [({"host": "h", "job": "a"}, 4096)]
            assert ({"host": "h", "gpu": "g", "job": "a"}, 0) in figures["usance_gpu_utilization_ratio"]
            assert figures["usance_agent_connected"] == [({"host": "h"}, 0)]
            assert figures["usance_host_memory_bytes"][0][1] > 1 << 20
            shown = runner.reports()[0].figures
            assert shown is not None
            assert (shown.memory_bytes, shown.cpu_milli) == (4096, None)
            assert [gpu.uuid for gpu in shown.gpus] == ["g"]
            (groups / container / "cpu.stat").write_text("usage_usec 900000000\n")
            await observer.pass_once()
            shown = runner.reports()[0].figures
            assert shown is not None
            assert (shown.cpu_milli or 0) > 1_000
            await runner.apply([])
            await host.until(lambda: not runner.reports())
            await observer.pass_once()
            _, text = await asyncio.to_thread(fetch, port)
            assert 'job="a"' not in text
        finally:
            await metrics.close()

    asyncio.run(host.agent(story))


def test_there_is_one_page_and_it_is_read_only():
    family = Family(name="x", help="y", kind=Kind.GAUGE, samples=(Sample(labels={"a": 'b"\\\n'}, value=1),))

    async def story() -> None:
        metrics = Page(lambda: render([family]))
        _, port = await metrics.start("127.0.0.1", 0)
        try:
            assert (await asyncio.to_thread(fetch, port)) == (
                200,
                '# HELP x y\n# TYPE x gauge\nx{a="b\\"\\\\\\n"} 1\n',
            )
            assert (await asyncio.to_thread(fetch, port, "/metrics?x=1"))[0] == 200
            assert (await asyncio.to_thread(fetch, port, "/metrics", "HEAD")) == (200, "")
            assert (await asyncio.to_thread(fetch, port, "/"))[0] == 404
            assert (await asyncio.to_thread(fetch, port, "/metrics", "POST"))[0] == 405
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\n" + b"x" * 100_000)
            assert await reader.read() == b""
            writer.close()
        finally:
            await metrics.close()

    asyncio.run(story())


def test_a_real_agent_with_simulated_gpus_says_so(tmp_path: Path):
    port = free_port()
    config = tmp_path / "agent.toml"
    config.write_text(f'metrics_listen = "127.0.0.1:{port}"\n')

    async def whole() -> None:
        coordinator = FakeCoordinator()
        await coordinator.start()
        agent = AgentProcess(tmp_path / "state", (*PROCESS_FLAGS, "--config", str(config)))
        try:
            await agent.enroll(coordinator.token)
            await agent.start()
            await coordinator.until(lambda: bool(coordinator.hellos), "the agent says hello")
            _, text = await asyncio.to_thread(fetch, port)
            figures = gathered(text)
            infos = [labels for labels, _ in figures["usance_gpu_info"]]
            assert len(infos) == 2
            assert all(labels["simulated"] == "true" for labels in infos)
            assert all("SIMULATED" in labels["gpu"] and "SIMULATED" in labels["model"] for labels in infos)
            healths = {labels["condition"]: value for labels, value in figures["usance_gpu_health"]}
            assert healths == {"healthy": 1, "degraded": 0, "lost": 0}
        finally:
            await agent.clear_up()
            await coordinator.stop()

    asyncio.run(whole())
