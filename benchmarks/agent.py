"""What an agent costs: from assignment to a command that runs, idle, in fetching images; what its meter errs.

    python -m benchmarks.agent [--quick] [--json]

A real agent, told what to run by a coordinator that keeps to the protocol and has no store. Containers are
timed by the engine's own clock, ours and those that its API alone starts from the same spec, turn by turn.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import docker

from benchmarks import report
from benchmarks.processes import cpu_s, rss_bytes
from benchmarks.pulls import pulls
from benchmarks.report import Figure
from tests.rig.dockerd import running_engine
from tests.rig.images import TINY, tiny_image
from tests.rig.parts import MissingError
from tests.support.agent_process import AgentProcess, descendants
from tests.support.fake_coordinator import FakeCoordinator, Taken, desired_attempt
from usance.v1 import host_pb2, types_pb2

GPUS = 8
TERMS = ("--price", "1", "--simulated-gpus", str(GPUS))
PROCESS = ("--executor", "process", "--allow-process-executor", *TERMS)
BEAT_MS = 10_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NS_PER_MS = 1_000_000
RSS_MB_MAX, CPU_PERCENT_MAX = 75.0, 0.5
# What is kept of a job's output: once where it is written, and once on its way to the coordinator.
FLOOD_KEPT_MIB, FLOOD_DISK_MIB_MAX, FLOOD_GAP_MS_MAX = 16, 2 * 16 + 2, 2_500
METER_PERCENT_MAX, METER_MS_MAX = 0.1, 50


@dataclass(frozen=True, kw_only=True)
class Sizes:
    processes: int
    containers: int
    idle_s: float
    metered_s: Sequence[float]
    pulls: int
    flood_bytes: int


FULL = Sizes(
    processes=60, containers=30, idle_s=40, metered_s=(0.2, 1, 3, 10, 30), pulls=7, flood_bytes=10**10
)
QUICK = Sizes(processes=15, containers=6, idle_s=10, metered_s=(0.2, 2), pulls=2, flood_bytes=500_000_000)


@dataclass(frozen=True)
class Host:
    coordinator: FakeCoordinator
    agent: AgentProcess

    async def forget(self, attempt_id: str) -> None:
        self.coordinator.drop(attempt_id)
        await self.coordinator.until(lambda: not self.coordinator.beats[-1].attempts, "it is forgotten")


@asynccontextmanager
async def running_agent(folder: Path, flags: Sequence[str], *, beat_ms: int = 500) -> AsyncIterator[Host]:
    coordinator = FakeCoordinator()
    coordinator.beat_interval_ms = beat_ms
    await coordinator.start()
    agent = AgentProcess(folder / "state", flags)
    try:
        await agent.enroll(coordinator.token)
        await agent.start()
        await coordinator.until(lambda: bool(coordinator.beats), "the agent beats", deadline_s=60)
        yield Host(coordinator, agent)
    finally:
        await agent.clear_up()
        await coordinator.stop()


async def idle(folder: Path, sizes: Sizes) -> list[Figure]:
    """Before its first job, and after one, when the processes that start jobs stay."""
    async with running_agent(folder, PROCESS, beat_ms=BEAT_MS) as host:
        pids = descendants(host.agent.pid)
        fresh_mb = resident_mb(pids)
        before, began = sum(map(cpu_s, pids)), time.monotonic()
        await asyncio.sleep(sizes.idle_s)
        percent = (sum(map(cpu_s, pids)) - before) / (time.monotonic() - began) * 100
        taken = host.coordinator.want(desired_attempt("true"))
        await host.coordinator.until(lambda: taken.complete, "a job ran")
        await host.forget("attempt_1")
        pids = descendants(host.agent.pid)
        used_mb = resident_mb(pids)
    return [
        _below(
            f"resident MB of all its processes, idle, {GPUS} simulated GPUs",
            used_mb,
            RSS_MB_MAX,
            f"after a job, in {len(pids)} processes; {fresh_mb:.0f} MB before the first",
        ),
        _below(
            "CPU % of a core, idle, with one beat in 10 s", percent, CPU_PERCENT_MAX, f"{sizes.idle_s:g} s"
        ),
    ]


def resident_mb(pids: Sequence[int]) -> float:
    """Of a fork that began no other program, what it does not share with the one it was forked from."""
    found, programs = 0, set()
    for pid in pids:
        program = Path(f"/proc/{pid}/cmdline").read_bytes()
        found += _private_bytes(pid) if program in programs else rss_bytes(pid)
        programs.add(program)
    return found / 1e6


def _private_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


async def flood(folder: Path, sizes: Sizes) -> list[Figure]:
    """A job that writes as fast as it can, on a host that keeps so much of a job's output and no more."""
    config = folder / "agent.toml"
    config.write_text(f"output_mib_max = {FLOOD_KEPT_MIB}\n")
    flags = ("--config", str(config), *PROCESS)
    gaps_ms: list[float] = []
    most = 0
    async with running_agent(folder, flags) as host:
        beats, disk = host.coordinator.beats, host.agent.state_dir
        size = sizes.flood_bytes
        taken = host.coordinator.want(desired_attempt("head", "-c", str(size), "/dev/zero"))
        await host.coordinator.until(lambda: taken.last.run_ms > 0, "it runs")
        began, count, at = time.monotonic(), len(beats), time.monotonic()
        while not taken.complete:
            await host.coordinator.until(lambda seen=count: len(beats) > seen, "it beats", deadline_s=60)  # type: ignore[misc]
            now = time.monotonic()
            gaps_ms.append((now - at) * 1_000)
            count, at = len(beats), now
            most = max(most, await asyncio.to_thread(_disk_bytes, disk))
        took_s = time.monotonic() - began
        kept = len(taken.stdout)
    rate = f"{size / 1e9:g} GB at {size / took_s / 1e6:.0f} MB/s; {kept >> 20} MiB were passed on"
    return [
        _below("MiB on the disk, of a job that floods", most / (1 << 20), FLOOD_DISK_MIB_MAX, rate),
        _below("longest gap between beats meanwhile, ms", max(gaps_ms), FLOOD_GAP_MS_MAX, "a beat in 500 ms"),
    ]


def _disk_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # it has just gone
            total += path.stat().st_blocks * 512
    return total


async def processes(folder: Path, sizes: Sizes) -> list[Figure]:
    """The command itself writes the time, for the agent and for whoever just starts it."""
    ours_ms, floor_ms = [], []
    async with running_agent(folder, PROCESS) as host:
        for number in range(sizes.processes):
            path = folder / f"ours-{number}"
            asked_ns = time.time_ns()
            taken = host.coordinator.want(desired_attempt(*_note_time(path), attempt_id=f"a{number}"))
            await host.coordinator.until(lambda taken=taken: taken.complete, "it ran")  # type: ignore[misc]
            ours_ms.append((int(path.read_text()) - asked_ns) / NS_PER_MS)
            await host.forget(f"a{number}")
            path, asked_ns = folder / f"floor-{number}", time.time_ns()
            command = await asyncio.create_subprocess_exec(*_note_time(path))
            await command.wait()
            floor_ms.append((int(path.read_text()) - asked_ns) / NS_PER_MS)
    ours_ms.sort()
    return [
        Figure(
            figure="assignment to process running ms, p50, beside a bare start",
            ours=median(ours_ms),
            floor=median(floor_ms),
            ratio=median(ours_ms) / median(floor_ms),
            note=f"p90 {ours_ms[len(ours_ms) * 9 // 10]:.1f} ms; noted durably before it starts",
        )
    ]


def _note_time(path: Path) -> tuple[str, ...]:
    return ("/bin/sh", "-c", f"date +%s%N > {path}")


async def containers(folder: Path, sizes: Sizes) -> list[Figure]:
    with running_engine() as engine, engine.client() as client:
        tiny_image(client)
        config = folder / "agent.toml"
        config.write_text("local_images = true\ndisk_reserve_gb = 0\n")
        engine_flags = ("--executor", "docker", "--docker-host", engine.base_url)
        flags = ("--config", str(config), *engine_flags, *TERMS)
        async with running_agent(folder, flags) as host:
            ours_ms: list[float] = []
            floor_ms: list[float] = []
            # The first of each only warms up.
            for number in range(sizes.containers + 1):
                ours, floor = await _container_turn(host, client.api, f"a{number}")
                ours_ms.append(ours)
                floor_ms.append(floor)
            figures = [
                report.at_most(
                    "assignment to container running ms, p50, beside create + start by the API",
                    median(ours_ms[1:]),
                    median(floor_ms[1:]),
                    1.15,
                    1.05,
                    f"{sizes.containers} turns",
                )
            ]
            errors = [await _meter_error(host, client.api, s) for s in sizes.metered_s]
    worst = max(errors, key=lambda error: abs(error.error_ms))
    allowed = all(
        abs(error.error_ms) <= max(METER_MS_MAX, error.true_ms * METER_PERCENT_MAX / 100) for error in errors
    )
    signed = ", ".join(f"{error.error_ms:+.1f} of {error.true_ms:,.0f}" for error in errors)
    return [
        *figures,
        Figure(
            figure="meter's error against a container's true run time, ms, the worst",
            ours=abs(worst.error_ms),
            bar=f"<= {METER_MS_MAX} or {METER_PERCENT_MAX} %",
            ok=allowed,
            note=f"metered less true (the engine's own): {signed} ms",
        ),
    ]


async def fetches(folder: Path, sizes: Sizes) -> list[Figure]:
    return await pulls(folder, sizes.pulls)


async def _container_turn(host: Host, api: docker.APIClient, attempt_id: str) -> tuple[float, float]:
    """How long the agent took for a container, and the engine alone for one of the same spec, in ms."""
    asked_ns = time.time_ns()
    taken = host.coordinator.want(_in_container("true", attempt_id))
    await host.coordinator.until(lambda: taken.complete, "its container ran")
    if not taken.last.container_id:
        raise RuntimeError(f"the agent started no container: {taken.last.detail}")
    theirs = await asyncio.to_thread(api.inspect_container, taken.last.container_id)
    ours_ms = _moment_ns(theirs["State"]["StartedAt"]) - asked_ns
    floor_ms = await asyncio.to_thread(_engine_alone, api, theirs)
    await host.forget(attempt_id)
    return ours_ms / NS_PER_MS, floor_ms / NS_PER_MS


def _engine_alone(api: docker.APIClient, like: dict[str, Any]) -> int:
    """Create and start another container of the same spec; the nanoseconds until it ran."""
    body = {**like["Config"], "HostConfig": like["HostConfig"]}
    # What tells whose it is would have the agent take it for its own; and each has a name of its own.
    body.update(Labels={}, Hostname="")
    asked_ns = time.time_ns()
    made = api.create_container_from_config(body)["Id"]  # type: ignore[no-untyped-call]
    try:
        api.start(made)
        api.wait(made)
        return _moment_ns(api.inspect_container(made)["State"]["StartedAt"]) - asked_ns
    finally:
        api.remove_container(made, v=True, force=True)


@dataclass(frozen=True, kw_only=True)
class MeterError:
    true_ms: float
    error_ms: float


async def _meter_error(host: Host, api: docker.APIClient, duration_s: float) -> MeterError:
    attempt_id = f"metered-{int(duration_s * 1_000)}"
    taken: Taken = host.coordinator.want(_in_container(f"sleep {duration_s:g}", attempt_id))
    await host.coordinator.until(lambda: taken.complete, "it ended", deadline_s=duration_s + 30)
    inspected = await asyncio.to_thread(api.inspect_container, taken.last.container_id)
    state = inspected["State"]
    true_ms = (_moment_ns(state["FinishedAt"]) - _moment_ns(state["StartedAt"])) / NS_PER_MS
    await host.forget(attempt_id)
    return MeterError(true_ms=true_ms, error_ms=taken.last.run_ms - true_ms)


def _in_container(script: str, attempt_id: str) -> host_pb2.DesiredAttempt:
    return desired_attempt(
        *("sh", "-c", script), attempt_id=attempt_id, image=TINY, isolation=types_pb2.ISOLATION_CONTAINER
    )


def _moment_ns(text: str) -> int:
    """RFC 3339 with up to nine decimals."""
    whole, _, decimals = text.removesuffix("Z").partition(".")
    seconds = (datetime.fromisoformat(whole + "+00:00") - EPOCH) // timedelta(seconds=1)
    return seconds * 1_000_000_000 + int(decimals[:9].ljust(9, "0"))


def _below(figure: str, ours: float, bound: float, note: str) -> Figure:
    return Figure(figure=figure, ours=ours, bar=f"< {bound:g}", ok=ours < bound, note=note)


def measure(sizes: Sizes) -> list[Figure]:
    figures: list[Figure] = []
    for part in (idle, flood, processes, containers, fetches):
        with tempfile.TemporaryDirectory(prefix="usance-bench-") as name:
            try:
                figures += asyncio.run(part(Path(name), sizes))
            except MissingError as missing:
                figures.append(Figure(figure=part.__name__, ours=None, note=str(missing)))
        print(f"{part.__name__} done", file=sys.stderr, flush=True)
    return figures


def main() -> None:
    given = report.arguments(__doc__).parse_args()
    report.show("agent", measure(QUICK if given.quick else FULL), as_json=given.json)


if __name__ == "__main__":
    main()
