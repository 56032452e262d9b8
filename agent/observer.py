"""Looks at what jobs and the machine use, for their buyers and for the seller's own monitoring."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.cgroups import Cgroups
from agent.domain.attempt import AttemptKey, AttemptState
from agent.domain.figures import GpuView, JobView, View
from agent.domain.use import HostUse, JobFigures, JobUse, ProcessUse, cpu_milli
from agent.gpu.watch import GpuWatch
from agent.runner import Runner
from runtime.clock import Clock

LOOK_MS = 5_000
_RUNS = (AttemptState.RUNNING, AttemptState.STOPPING)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What an attempt used, and when."""

    at_ms: int
    container_id: str
    use: JobUse | None


class Observer:
    """Keeps the last look at every attempt whose command runs."""

    def __init__(
        self, *, runner: Runner, gpus: GpuWatch, cgroups: Cgroups, clock: Clock, jobs_folder: Path
    ) -> None:
        self._runner = runner
        self._gpus = gpus
        self._cgroups = cgroups
        self._clock = clock
        self._jobs_folder = jobs_folder
        self._seen: dict[AttemptKey, _Seen] = {}

    async def keep_observing(self) -> None:
        """For ever."""
        while True:
            await self.pass_once()
            await self._clock.sleep_ms(LOOK_MS)

    async def pass_once(self) -> None:
        running = [report for report in self._runner.reports() if report.state in _RUNS]
        if not running and not self._seen:
            return
        before, now_ms = self._seen, self._clock.boot_ms()
        uses = await asyncio.to_thread(lambda: [self._cgroups.use(r.container_id) for r in running])
        self._seen = {
            report.key: _Seen(at_ms=now_ms, container_id=report.container_id, use=use)
            for report, use in zip(running, uses, strict=True)
        }
        for key in before.keys() - self._seen.keys():
            self._cgroups.forget(before[key].container_id)
        owners = self._runner.gpus_in_use()
        self._runner.show({r.key: self._figures(r.key, before.get(r.key), owners) for r in running})

    def _figures(self, key: AttemptKey, before: _Seen | None, owners: Mapping[str, str]) -> JobFigures:
        now = self._seen[key]
        mine = [uuid for uuid, attempt_id in owners.items() if attempt_id == key.attempt_id]
        charts = [self._gpus.chart(uuid) for uuid in mine if self._gpus.has(uuid)]
        cpu = None
        if before is not None and before.use is not None and now.use is not None:
            cpu = cpu_milli(before.use, now.use, now.at_ms - before.at_ms)
        return JobFigures(
            cpu_milli=cpu,
            memory_bytes=now.use.memory_bytes if now.use else None,
            gpus=tuple(chart.sample for chart in charts if chart.sample is not None and not chart.fault),
        )

    def view(
        self,
        *,
        host_id: str,
        version: str,
        executor: str,
        connected: bool,
        connections: int = 0,
        certificate_ends_ms: int = 0,
    ) -> View:
        """Everything as it is now."""
        owners = self._runner.gpus_in_use()
        inventory = self._gpus.inventory
        reports = [report for report in self._runner.reports() if report.state in _RUNS]
        return View(
            host_id=host_id,
            version=version,
            executor=executor,
            connected=connected,
            connections=connections,
            certificate_ends_ms=certificate_ends_ms,
            stock=self._runner.stock(),
            process=process_use(),
            driver_restarts=self._gpus.restarts,
            host=host_use(self._jobs_folder),
            gpus=tuple(self._gpu(info.uuid, owners) for info in (*inventory.gpus, *inventory.boards)),
            jobs=tuple(
                JobView(
                    attempt_id=report.key.attempt_id,
                    run_ms=report.run_ms,
                    use=self._seen[report.key].use if report.key in self._seen else None,
                )
                for report in reports
            ),
        )

    def _gpu(self, uuid: str, owners: Mapping[str, str]) -> GpuView:
        chart = self._gpus.chart(uuid)
        return GpuView(
            info=self._gpus.info(uuid),
            health=self._gpus.health(uuid),
            # What a GPU last told before it fell silent is no news.
            sample=None if chart.fault else chart.sample,
            vitals=None if chart.fault else chart.vitals,
            job=owners.get(uuid, ""),
            xids={number: count for (of, number), count in self._gpus.xids.items() if of == uuid},
        )


def process_use() -> ProcessUse:
    """What we ourselves use."""
    process = psutil.Process()
    with process.oneshot():
        times = process.cpu_times()
        return ProcessUse(
            cpu_ms=int((times.user + times.system) * 1_000),
            memory_bytes=process.memory_info().rss,
            files=process.num_fds(),
            started_ms=int(process.create_time() * 1_000),
        )


def host_use(jobs_folder: Path) -> HostUse:
    """What the machine uses, as the kernel counts it."""
    times, memory = psutil.cpu_times(), psutil.virtual_memory()
    disk, disks = psutil.disk_usage(str(jobs_folder)), psutil.disk_io_counters()
    network = psutil.net_io_counters()
    modes = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    return HostUse(
        cpu_ms=tuple((mode, int(getattr(times, mode) * 1_000)) for mode in modes),
        load_milli=int(psutil.getloadavg()[0] * 1_000),
        memory_bytes=memory.total,
        memory_available_bytes=memory.available,
        disk_bytes=disk.total,
        disk_free_bytes=disk.free,
        disk_read_bytes=disks.read_bytes if disks else None,
        disk_written_bytes=disks.write_bytes if disks else None,
        network_received_bytes=network.bytes_recv,
        network_sent_bytes=network.bytes_sent,
    )
