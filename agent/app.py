"""Puts the agent together: the only place that names what it is made of."""

import asyncio
import fcntl
import importlib.metadata
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import assert_never

import psutil

from agent.cgroups import Cgroups
from agent.domain.exposition import render
from agent.domain.figures import View, families
from agent.domain.gpu import Inventory
from agent.domain.host import Hello, HostFacts, Terms, is_offered, kept_back, prices_of
from agent.domain.hours import in_utc
from agent.domain.images import GB, ImagePolicy
from agent.domain.network import NetworkPolicy
from agent.domain.plan import HostPolicy
from agent.executor.ports import Executor
from agent.executor.process import ProcessExecutor
from agent.gpu import power
from agent.gpu.ports import GpuError, Gpus
from agent.gpu.simulated import SimulatedGpus
from agent.gpu.watch import GpuWatch
from agent.link.client import Link
from agent.link.identity import Identity
from agent.link.renewal import Papers
from agent.observer import Observer
from agent.reload import Current
from agent.runner import Runner
from agent.settings import GIB, MEGA, ExecutorKind, Settings
from agent.window import Window
from runtime import notify, private
from runtime.clock import Clock, SystemClock, utc_offset_minutes
from runtime.ids import new_id
from runtime.page import Page
from runtime.tracing import open_tracer

log = logging.getLogger(__name__)

# Names this run of ours.
_INSTANCE = new_id("run")
_LOOK_MS = 5_000
_HOURS_MS = 60_000


class AlreadyRunningError(Exception):
    """Another agent works with the same state folder."""


def version() -> str:
    return importlib.metadata.version("usance")


def hold_state_dir(state_dir: Path) -> int:
    """Make the folder ours for as long as we live. Returns the descriptor that holds it."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise AlreadyRunningError(f"another agent works with {state_dir}") from error
    return lock


async def run(settings: Settings, identity: Identity, load: Callable[[], Settings]) -> None:
    """Work until SIGTERM or SIGINT. What runs goes on without us. `load` reads the settings again."""
    # What a job must not lose is in our memory: in no file of ours, and in no core either.
    private.keep_out_of_dumps()
    clock = SystemClock()
    current, traces = Current(settings, load), open_tracer("usance-agent", settings.traces)
    gpus = GpuWatch(gpus_of(settings, identity.host_id, clock), clock, settings.state_dir / "gpus.json")
    inventory = await gpus.open()
    if not inventory.gpus:
        raise GpuError("there is no GPU to offer on this machine")
    executor = executor_of(settings, identity.host_id, clock, inventory)
    name = await executor.describe()
    runner = Runner(
        folder=settings.state_dir / "attempts",
        executor=executor,
        clock=clock,
        gpus=gpus,
        record_ms=settings.record_seconds * 1_000,
        output_waiting_bytes_max=settings.output_waiting_mib << 20,
        traces=traces,
    )
    papers = Papers(settings.state_dir, identity, clock)
    link = Link(
        open_channel=papers.open_channel,
        hello=lambda: _hello(current.settings, clock, executor, name, gpus),
        holder=runner,
        clock=clock,
        traces=traces,
    )
    runner.tell(link)
    gpus.tell(link.facts_changed)
    observer = Observer(
        runner=runner, gpus=gpus, cgroups=Cgroups(), clock=clock, jobs_folder=settings.state_dir
    )
    page = Page(lambda: render(families(_view(observer, papers, name, link))))
    window = Window(lambda: _view(observer, papers, name, link))
    current.tell(link.facts_changed)
    await runner.restore()
    log.info("agent %s of host %s: %d GPUs, %s", version(), identity.host_id, len(inventory.gpus), name)
    capping = asyncio.create_task(_cap_power(settings, inventory))
    try:
        if settings.metrics_listen is not None:
            await page.try_start(*settings.metrics_listen)
        await _open(window, settings.state_dir)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, current.read_again)
        # Whether or not the coordinator is there: what runs is looked after.
        notify.tell("READY=1", f"STATUS=host {identity.host_id}, {len(inventory.gpus)} GPUs")
        await _until_told(
            runner.keep_reconciling(),
            link.run(),
            papers.keep_good(),
            gpus.keep_watching(runner),
            observer.keep_observing(),
            _keep_looking(executor, clock),
            _keep_hours_true(link, current, clock),
            notify.keep_telling(clock),
        )
    finally:
        notify.tell("STOPPING=1")
        capping.cancel()
        await page.close()
        await window.close()
        await runner.close()
        await gpus.close()
        await asyncio.to_thread(traces.close)


async def _until_told(*loops: Coroutine[None, None, None]) -> None:
    """Run loops that never end until somebody tells us to go."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    tasks = [asyncio.create_task(loop) for loop in loops]
    leave = asyncio.create_task(told.wait())
    try:
        await asyncio.wait([*tasks, leave], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (*tasks, leave):
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    log.info("going; running jobs go on")


async def _keep_hours_true(link: Link, current: Current, clock: Clock) -> None:
    """The seller's hours are told in UTC: anew, when the clocks change for summer or winter."""
    told = utc_offset_minutes(clock.wall_ms())
    while True:
        await clock.sleep_ms(_HOURS_MS)
        now = utc_offset_minutes(clock.wall_ms())
        if current.settings.hours and now != told:
            link.facts_changed()
        told = now


async def _keep_looking(executor: Executor, clock: Clock) -> None:
    """See again and again that what keeps jobs in still does."""
    while True:
        await clock.sleep_ms(_LOOK_MS)
        await executor.look()


async def _cap_power(settings: Settings, inventory: Inventory) -> None:
    if settings.power_cap_watts:
        offered = (gpu for gpu in inventory.gpus if is_offered(gpu, settings.gpus) and not gpu.simulated)
        await power.cap(dict.fromkeys(gpu.board for gpu in offered), settings.power_cap_watts)


async def _open(window: Window, state_dir: Path) -> None:
    """Without it `status` says less, and all else goes on."""
    try:
        await window.start(state_dir)
    except OSError as error:
        log.warning("usance-agent status will say less: %s", error)


def _view(observer: Observer, papers: Papers, name: str, link: Link) -> View:
    return observer.view(
        host_id=papers.identity.host_id,
        version=version(),
        executor=name,
        connected=link.connected,
        connections=link.connections,
        certificate_ends_ms=papers.identity.ends_ms,
    )


def _hello(
    settings: Settings,
    clock: Clock,
    executor: Executor,
    name: str,
    gpus: GpuWatch,
) -> Hello:
    inventory = gpus.inventory
    return Hello(
        agent_version=version(),
        boot_id=clock.boot_id,
        instance=_INSTANCE,
        facts=HostFacts(
            hostname=socket.gethostname(),
            cpu_count=len(os.sched_getaffinity(0)),
            memory_bytes=psutil.virtual_memory().total,
            disk_free_bytes=psutil.disk_usage(str(settings.state_dir)).free,
            gpus=inventory.gpus,
            gpu_healths={
                gpu.uuid: kept_back(gpus.health(gpu.uuid), offered=is_offered(gpu, settings.gpus))
                for gpu in inventory.gpus
            },
            isolation=executor.isolation,
            executor=name,
            driver_version=inventory.driver_version,
            cuda_version=inventory.cuda_version,
            region=settings.region,
            labels=settings.labels,
            download_bps=settings.download_mbps * MEGA or None,
            upload_bps=settings.upload_mbps * MEGA or None,
        ),
        terms=Terms(
            gpu_hour_prices_micro=prices_of(inventory.gpus, settings.prices_micro),
            run_ms_max=settings.run_seconds_max * 1_000,
            trusted_accounts=settings.trusted_accounts,
            reclaim_notice_ms=settings.reclaim_notice_seconds * 1_000,
            hours=tuple(in_utc(settings.hours, utc_offset_minutes(clock.wall_ms()))),
            images_allowed=settings.images_allowed,
            images_denied=settings.images_denied,
            network_max=settings.network,
            network_destinations=settings.network_destinations,
        ),
    )


def gpus_of(settings: Settings, host_id: str, clock: Clock) -> Gpus:
    """The driver's GPUs, or simulated ones instead; never both, so that nobody takes one for the other."""
    simulated = settings.simulated_gpus
    if simulated.count == 0:
        from agent.gpu.driver import NvmlGpus

        return NvmlGpus(clock)
    return SimulatedGpus(
        count=simulated.count,
        model=simulated.model,
        vram_bytes=simulated.vram_gib * GIB,
        seed=host_id,
        clock=clock,
    )


def executor_of(settings: Settings, host_id: str, clock: Clock, inventory: Inventory) -> Executor:
    match settings.executor:
        case ExecutorKind.PROCESS:
            return ProcessExecutor(settings.state_dir / "runs", clock, settings.output_mib_max << 20)
        case ExecutorKind.DOCKER:
            from agent.executor.docker import DockerExecutor

            policy = HostPolicy(
                host_id=host_id,
                boot_id=clock.boot_id,
                cpu_count=len(os.sched_getaffinity(0)),
                memory_bytes=psutil.virtual_memory().total,
                gpu_count=len(inventory.gpus),
                workspace_bytes=settings.workspace_mib << 20,
                tmp_bytes=settings.tmp_mib << 20,
                pids_max=settings.pids_max,
                output_bytes_max=settings.output_mib_max << 20,
                nofile_max=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
                images=ImagePolicy(
                    reserve_bytes=settings.disk_reserve_gb * GB,
                    image_bytes_max=settings.image_gb_max * GB,
                    local_images=settings.local_images,
                ),
                network=NetworkPolicy(
                    network_max=settings.network,
                    destinations=settings.network_destinations,
                    pool=settings.network_pool,
                    dns=settings.dns_servers,
                ),
            )
            return DockerExecutor(
                folder=settings.state_dir / "runs",
                docker_host=settings.docker_host,
                policy=policy,
                clock=clock,
                gpu_minors={gpu.uuid: gpu.minor for gpu in inventory.gpus if gpu.minor is not None},
            )
        case _:
            assert_never(settings.executor)
