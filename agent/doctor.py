"""Looks at this machine for the check-up, and writes down what it found. What it means, the domain says."""

import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

import psutil
from cryptography import x509

from agent import app, status
from agent.domain.attempt import Network
from agent.domain.facts import (
    DriverFacts,
    Facts,
    GpuFacts,
    MachineFacts,
    MarketFacts,
    NetworkFacts,
    ToolkitFacts,
)
from agent.domain.gpu import Inventory
from agent.executor import survey
from agent.executor.ports import ExecutorError
from agent.gpu.ports import GpuError
from agent.gpu.watch import GpuWatch
from agent.link import identity as identities
from agent.link import standing as asking
from agent.settings import ExecutorKind, Settings
from runtime.clock import Clock, SystemClock, clock_synchronized
from runtime.findings import Finding, as_text

# Less than this part of its life is left.
_LATE_PARTS = 10
_KERNEL_DRIVER = Path("/proc/driver/nvidia/version")
_DRIVER_VERSION = re.compile(r"Kernel Module\s+(?:for \S+\s+)?(\d+\.\d+(?:\.\d+)?)")
_NETWORK_PROGRAMS = ("iptables", "iptables-restore", "ip")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin"
_NOBODY = "host_doctor"


async def look(settings: Settings, settings_error: str = "", *, tries: bool = True) -> Facts:
    """Everything there is to see; a GPU that a job has is left alone. What only a try tells takes seconds."""
    clock = SystemClock()
    market = asyncio.create_task(_market(settings.state_dir, clock))
    in_use = _in_use(settings.state_dir)
    driver, inventory = await _driver(settings, clock, in_use)
    engine, toolkit, network = None, ToolkitFacts(), NetworkFacts(promised=settings.network)
    if settings.executor is ExecutorKind.DOCKER:
        engine = await asyncio.to_thread(survey.engine_facts, settings.docker_host)
        toolkit = await asyncio.to_thread(survey.toolkit_facts)
        # A try leaves its marks in the state folder for as long as it takes.
        if tries and not engine.error and os.access(_existing(settings.state_dir), os.W_OK):
            driver, network = await _tried(settings, clock, inventory, driver, in_use)
    return Facts(
        machine=await asyncio.to_thread(_machine, settings, settings_error),
        market=await market,
        driver=driver,
        engine=engine,
        toolkit=toolkit,
        network=network,
    )


def write_bundle(path: Path, settings: Settings, facts: Facts, findings: list[Finding]) -> None:
    """What somebody who helps would ask for. No key, no token, no price of yours, no output of a job."""
    shown = {name: str(value) for name, value in asdict(settings).items() if name != "prices_micro"}
    content = {
        "doctor.txt": as_text(findings),
        "facts.json": json.dumps(asdict(facts), indent=1, default=str),
        "settings.json": json.dumps(shown, indent=1),
        "status.json": json.dumps(status.read(settings.state_dir).as_json(), indent=1),
        "versions.txt": f"usance-agent {app.version()}\n{' '.join(os.uname())}\n",
    }
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as raw_file, tarfile.open(fileobj=raw_file, mode="w:gz") as archive:
        for name, text in content.items():
            entry = tarfile.TarInfo(f"usance-support/{name}")
            raw = text.encode()
            entry.size, entry.mode = len(raw), 0o600
            archive.addfile(entry, io.BytesIO(raw))


async def _driver(
    settings: Settings, clock: Clock, in_use: Collection[str]
) -> tuple[DriverFacts, Inventory | None]:
    simulated = settings.simulated_gpus.count > 0
    kernel = "" if simulated else _kernel_driver()
    watch = GpuWatch(app.gpus_of(settings, _NOBODY, clock), clock)
    try:
        inventory = await watch.open()
        troubles = {gpu.uuid: watch.health(gpu.uuid).reason for gpu in inventory.gpus}
    except GpuError as error:
        return DriverFacts(error=str(error), kernel_version=kernel), None
    finally:
        await watch.close()
    facts = DriverFacts(
        simulated=simulated,
        library_version=inventory.driver_version,
        kernel_version=kernel,
        gpus=tuple(
            # What a job does on its GPU is no trouble.
            GpuFacts(uuid=gpu.uuid, model=gpu.model, trouble="" if gpu.uuid in in_use else troubles[gpu.uuid])
            for gpu in inventory.gpus
        ),
        silent=inventory.silent,
    )
    return facts, inventory


async def _tried(
    settings: Settings,
    clock: Clock,
    inventory: Inventory | None,
    driver: DriverFacts,
    in_use: Collection[str],
) -> tuple[DriverFacts, NetworkFacts]:
    """What only a try can tell: does a container get each GPU, and is it held to its network?"""
    from agent.executor.docker import DockerExecutor

    identity = identities.load(settings.state_dir)
    nothing = Inventory(driver_version="", cuda_version="", gpus=())
    host_id = identity.host_id if identity else _NOBODY
    try:
        executor = app.executor_of(settings, host_id, clock, inventory or nothing)
    except ExecutorError as error:
        failed = tuple(replace(gpu, start_error=str(error)) for gpu in driver.gpus)
        return replace(driver, gpus=failed), NetworkFacts(promised=settings.network)
    assert isinstance(executor, DockerExecutor)
    missing = tuple(name for name in _NETWORK_PROGRAMS if shutil.which(name, path=_PATH) is None)
    network = NetworkFacts(promised=settings.network, missing_programs=missing)
    try:
        gpus = []
        for gpu in driver.gpus:
            tried = None if gpu.uuid in in_use else await executor.try_start((gpu.uuid,))
            gpus.append(replace(gpu, start_error=tried))
        if settings.network is not Network.NONE and not missing and os.geteuid() == 0:
            network = NetworkFacts(promised=settings.network, error=await executor.try_network())
    finally:
        await executor.close()
    return replace(driver, gpus=tuple(gpus)), network


def _machine(settings: Settings, settings_error: str) -> MachineFacts:
    folder = _existing(settings.state_dir)
    free = mode = None
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(folder).free
        mode = settings.state_dir.stat().st_mode & 0o777
    return MachineFacts(
        settings_error=settings_error,
        priced=any(settings.prices_micro.values()),
        is_root=os.geteuid() == 0,
        clock_synchronized=clock_synchronized(),
        state_dir=str(settings.state_dir),
        state_free_bytes=free,
        state_filesystem=_filesystem(folder),
        state_mode=mode,
        # Of a file system that is mounted read-only it is false, also for root.
        state_writable=os.access(folder, os.W_OK),
    )


async def _market(state_dir: Path, clock: Clock) -> MarketFacts:
    try:
        identity = identities.load(state_dir)
    except (OSError, ValueError, KeyError) as error:
        return MarketFacts(enrolled=False, error=str(error))
    if identity is None:
        return MarketFacts(enrolled=False)
    certificate = x509.load_pem_x509_certificate(identity.certificate_pem)
    begins_s = int(certificate.not_valid_before_utc.timestamp())
    ends_s = int(certificate.not_valid_after_utc.timestamp())
    left_s = ends_s - clock.wall_ms() // 1_000
    hours, is_late = left_s // 3_600, left_s * _LATE_PARTS < ends_s - begins_s
    try:
        told = await asking.standing(identity, clock.wall_ms())
    except asking.UnreachedError as error:
        told, error_text = None, str(error)
    else:
        error_text = ""
    return MarketFacts(
        address=identity.hosts,
        error=error_text,
        state=told.state if told else "",
        reason=told.reason if told else "",
        certificate_hours=hours,
        certificate_is_late=is_late,
        certificate_is_early=clock.wall_ms() // 1_000 < begins_s,
    )


def _in_use(state_dir: Path) -> frozenset[str]:
    """GPUs that jobs have."""
    try:
        attempts = status.read(state_dir).attempts
    except OSError:
        return frozenset()
    return frozenset(uuid for attempt in attempts if attempt.is_live for uuid in attempt.gpu_uuids)


def _kernel_driver() -> str:
    try:
        found = _DRIVER_VERSION.search(_KERNEL_DRIVER.read_text(encoding="utf-8"))
    except OSError:
        return ""
    return found.group(1) if found else ""


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _filesystem(path: Path) -> str:
    """Of the innermost mount that the path is in."""
    real = str(path.resolve())
    mounts = [
        (part.mountpoint, part.fstype)
        for part in psutil.disk_partitions(all=True)
        if real == part.mountpoint or real.startswith(part.mountpoint.rstrip("/") + "/")
    ]
    return max(mounts, key=lambda mount: len(mount[0]))[1] if mounts else ""
