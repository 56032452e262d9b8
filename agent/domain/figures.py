"""What an agent tells of its machine, GPUs and jobs, as families of figures.

Made anew from what is known for every reading, so nothing is told of what is no longer there: no series of a
job that has ended, none of a sensor that does not answer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from agent.domain.attempt import AttemptState
from agent.domain.exposition import Family, Kind, Sample
from agent.domain.gpu import GpuInfo, GpuSample, GpuVitals
from agent.domain.health import Condition, GpuHealth
from agent.domain.use import HostUse, JobUse, ProcessUse, Stock

_Of = TypeVar("_Of")
# Name, help, kind, and how it is told.
_Figure = tuple[str, str, Kind, Callable[[_Of], float | None]]

# The driver's bits for a clock that is slower than it might be, and for what.
_SLOWED = {
    0x4: "power_cap",
    0x8: "hardware",
    0x20: "driver_thermal",
    0x40: "hardware_thermal",
    0x80: "power_brake",
}


@dataclass(frozen=True, kw_only=True)
class GpuView:
    """One GPU as it is told of. Of a GPU that does not answer there is no sample."""

    info: GpuInfo
    health: GpuHealth
    sample: GpuSample | None
    vitals: GpuVitals | None
    # The attempt that has it, or empty.
    job: str
    # How often the driver gave which error.
    xids: Mapping[int, int]


@dataclass(frozen=True, kw_only=True)
class JobView:
    """One attempt whose command runs."""

    attempt_id: str
    run_ms: int
    use: JobUse | None


@dataclass(frozen=True, kw_only=True)
class View:
    """Everything that is told at one moment."""

    host_id: str
    version: str
    executor: str
    connected: bool
    driver_restarts: int
    host: HostUse
    gpus: tuple[GpuView, ...]
    jobs: tuple[JobView, ...]
    # How often a coordinator has welcomed us.
    connections: int = 0
    # 0 where it is not known.
    certificate_ends_ms: int = 0
    stock: Stock = field(default_factory=Stock)
    process: ProcessUse | None = None


def families(view: View) -> list[Family]:
    host = {"host": view.host_id}
    agent = {**host, "version": view.version, "executor": view.executor}
    return [
        _one("usance_agent_info", "The agent itself.", agent, 1),
        _one("usance_agent_connected", "Whether a coordinator is connected.", host, int(view.connected)),
        _one(
            "usance_driver_restarts_total",
            "How often the process that asks the GPU driver had to be started again.",
            host,
            view.driver_restarts,
            Kind.COUNTER,
        ),
        *_agent_families(view, host),
        *_host_families(view.host, host),
        *_gpu_families(view.gpus, host),
        *_job_families(view.jobs, host),
    ]


def _agent_families(view: View, host: Mapping[str, str]) -> Iterable[Family]:
    stock, process, ends_ms = view.stock, view.process, view.certificate_ends_ms
    yield _many(
        "usance_agent_gpus",
        "GPUs by what they do: sold, free, or unfit for a job.",
        (({**host, "state": state}, count) for state, count in _gpu_counts(view.gpus).items()),
    )
    yield _many(
        "usance_agent_attempts",
        "Tries of jobs that are kept here, by state.",
        (({**host, "state": str(state)}, stock.attempts.get(state, 0)) for state in AttemptState),
    )
    for name, text, value, kind in (
        (
            "agent_connections_total",
            "How often a coordinator has welcomed us.",
            view.connections,
            Kind.COUNTER,
        ),
        (
            "agent_certificate_expiry_timestamp_seconds",
            "When this host's certificate ends.",
            ends_ms / 1_000 if ends_ms else None,
            Kind.GAUGE,
        ),
        ("agent_journal_bytes", "Usage records on the disk.", stock.journal_bytes, Kind.GAUGE),
        ("agent_spool_bytes", "Output of jobs on the disk.", stock.spool_bytes, Kind.GAUGE),
        (
            "agent_unacknowledged_records",
            "Usage records that the coordinator is not known to have.",
            stock.records_waiting,
            Kind.GAUGE,
        ),
        (
            "agent_unacknowledged_output_bytes",
            "Output that the coordinator is not known to have.",
            stock.output_bytes_waiting,
            Kind.GAUGE,
        ),
        (
            "agent_meter_lag_seconds",
            "Of the run that is furthest behind: run time that is in no record yet.",
            stock.meter_lag_ms / 1_000,
            Kind.GAUGE,
        ),
    ):
        yield _one(f"usance_{name}", text, host, value, kind)
    if process is not None:
        # By the names that every program's have.
        for name, text, value, kind in (
            ("cpu_seconds_total", "Processor time of the agent.", process.cpu_ms / 1_000, Kind.COUNTER),
            ("resident_memory_bytes", "Memory of the agent.", process.memory_bytes, Kind.GAUGE),
            ("open_fds", "Files that it has open.", process.files, Kind.GAUGE),
            ("start_time_seconds", "When it was started.", process.started_ms / 1_000, Kind.GAUGE),
        ):
            yield _one(f"process_{name}", text, host, value, kind)


def _gpu_counts(gpus: Sequence[GpuView]) -> dict[str, int]:
    counts, boards = {"sold": 0, "free": 0, "unfit": 0}, {gpu.info.board_uuid for gpu in gpus}
    for gpu in gpus:
        # A board that is sold in slices is none itself.
        if gpu.info.uuid not in boards:
            fit = gpu.health.condition is Condition.HEALTHY
            counts["sold" if gpu.job else "free" if fit else "unfit"] += 1
    return counts


def _host_families(use: HostUse, host: Mapping[str, str]) -> Iterable[Family]:
    modes = tuple(Sample(labels={**host, "mode": mode}, value=ms / 1_000) for mode, ms in use.cpu_ms)
    yield Family(
        name="usance_host_cpu_seconds_total",
        help="Processor time of the machine by what it was used for.",
        kind=Kind.COUNTER,
        samples=modes,
    )
    yield _one(
        "usance_host_load1", "Processes that run or wait, over a minute.", host, use.load_milli / 1_000
    )
    for name, text, value in (
        ("memory_bytes", "The machine's memory.", use.memory_bytes),
        ("memory_available_bytes", "Memory that could be had.", use.memory_available_bytes),
        ("disk_bytes", "The disk on which jobs live.", use.disk_bytes),
        ("disk_free_bytes", "What of it is free.", use.disk_free_bytes),
    ):
        yield _one(f"usance_host_{name}", text, host, value)
    for name, text, counted in (
        ("disk_read_bytes", "Read from all disks.", use.disk_read_bytes),
        ("disk_written_bytes", "Written to all disks.", use.disk_written_bytes),
        ("network_received_bytes", "Received on all networks.", use.network_received_bytes),
        ("network_sent_bytes", "Sent on all networks.", use.network_sent_bytes),
    ):
        yield _one(f"usance_host_{name}_total", text, host, counted, Kind.COUNTER)


def _gpu_families(gpus: Sequence[GpuView], host: Mapping[str, str]) -> Iterable[Family]:
    named = [(_gpu_labels(gpu, host), gpu) for gpu in gpus]
    yield _many("usance_gpu_info", "The GPU, and whether it exists.", _infos(gpus, host))
    yield _many("usance_gpu_health", "1 at the condition that the GPU is in.", _healths(gpus, host))
    yield _many("usance_gpu_memory_bytes", "Its memory.", ((at, gpu.info.vram_bytes) for at, gpu in named))
    yield from _table("usance_gpu", _SAMPLED, [(at, gpu.sample) for at, gpu in named])
    yield from _table("usance_gpu", _VITAL, [(at, gpu.vitals) for at, gpu in named])
    yield _many("usance_gpu_slowed", "1 where the clock is held back for that.", _slowed(gpus, host))
    yield Family(
        name="usance_gpu_xids_total",
        help="Errors that the driver gave since the agent started, by number.",
        kind=Kind.COUNTER,
        samples=tuple(
            Sample(labels={**_gpu_labels(gpu, host), "xid": str(number)}, value=count)
            for gpu in gpus
            for number, count in sorted(gpu.xids.items())
        ),
    )


def _job_families(jobs: Sequence[JobView], host: Mapping[str, str]) -> Iterable[Family]:
    labelled = [({**host, "job": job.attempt_id}, job) for job in jobs]
    yield _each(
        "usance_job_run_seconds",
        "How long the command has run.",
        Kind.GAUGE,
        [(labels, job.run_ms / 1_000) for labels, job in labelled],
    )
    yield from _table("usance_job", _USED, [(labels, job.use) for labels, job in labelled])


def _table(
    prefix: str, figures: Iterable[_Figure[_Of]], of_whom: Sequence[tuple[Mapping[str, str], _Of | None]]
) -> Iterable[Family]:
    for name, text, kind, of in figures:
        values = [(labels, None if whom is None else of(whom)) for labels, whom in of_whom]
        yield _each(f"{prefix}_{name}", text, kind, values)


def _infos(gpus: Sequence[GpuView], host: Mapping[str, str]) -> Iterable[tuple[Mapping[str, str], float]]:
    for gpu in gpus:
        simulated = "true" if gpu.info.simulated else "false"
        labels = {**host, "gpu": gpu.info.uuid, "model": gpu.info.model, "simulated": simulated}
        yield ({**labels, "board": gpu.info.board_uuid} if gpu.info.board_uuid else labels), 1


def _healths(gpus: Sequence[GpuView], host: Mapping[str, str]) -> Iterable[tuple[Mapping[str, str], float]]:
    for gpu in gpus:
        for condition in Condition:
            labels = {**host, "gpu": gpu.info.uuid, "condition": condition.value}
            yield labels, int(gpu.health.condition is condition)


def _slowed(gpus: Sequence[GpuView], host: Mapping[str, str]) -> Iterable[tuple[Mapping[str, str], float]]:
    for gpu in gpus:
        bits = gpu.sample.throttle_bits if gpu.sample else None
        for bit, reason in _SLOWED.items() if bits is not None else ():
            yield {**_gpu_labels(gpu, host), "reason": reason}, int(bool((bits or 0) & bit))


def _gpu_labels(gpu: GpuView, host: Mapping[str, str]) -> Mapping[str, str]:
    labels = {**host, "gpu": gpu.info.uuid}
    return {**labels, "job": gpu.job} if gpu.job else labels


def _one(
    name: str, text: str, labels: Mapping[str, str], value: float | None, kind: Kind = Kind.GAUGE
) -> Family:
    return _each(name, text, kind, [(labels, value)])


def _many(name: str, text: str, values: Iterable[tuple[Mapping[str, str], float]]) -> Family:
    return _each(name, text, Kind.GAUGE, values)


def _each(
    name: str, text: str, kind: Kind, values: Iterable[tuple[Mapping[str, str], float | None]]
) -> Family:
    samples = tuple(Sample(labels=labels, value=value) for labels, value in values if value is not None)
    return Family(name=name, help=text, kind=kind, samples=samples)


def _scaled(value: int | None, divisor: int) -> float | None:
    return None if value is None else value / divisor


def _times(value: int | None, factor: int) -> int | None:
    return None if value is None else value * factor


_SAMPLED: tuple[_Figure[GpuSample], ...] = (
    (
        "utilization_ratio",
        "Part of the time in which anything ran.",
        Kind.GAUGE,
        lambda s: _scaled(s.utilization_percent, 100),
    ),
    ("memory_used_bytes", "What of its memory is in use.", Kind.GAUGE, lambda s: s.memory_used_bytes),
    ("power_watts", "What it draws now.", Kind.GAUGE, lambda s: _scaled(s.power_mw, 1_000)),
    (
        "energy_joules_total",
        "What it drew since its driver was loaded.",
        Kind.COUNTER,
        lambda s: _scaled(s.energy_mj_total, 1_000),
    ),
    ("temperature_celsius", "How warm it is.", Kind.GAUGE, lambda s: s.temperature_c),
    ("sm_clock_hertz", "How fast it computes.", Kind.GAUGE, lambda s: _times(s.sm_clock_mhz, 1_000_000)),
)
_VITAL: tuple[_Figure[GpuVitals], ...] = (
    ("ecc_corrected_total", "Memory errors that were corrected.", Kind.COUNTER, lambda v: v.ecc_corrected),
    ("ecc_uncorrected_total", "Memory errors that were not.", Kind.COUNTER, lambda v: v.ecc_uncorrected),
    ("rows_remapped_total", "Rows of memory that were replaced.", Kind.COUNTER, lambda v: v.rows_remapped),
    ("pcie_replays_total", "Transfers that had to be repeated.", Kind.COUNTER, lambda v: v.pcie_replays),
    ("pcie_generation", "Generation of its link now.", Kind.GAUGE, lambda v: v.pcie_generation),
    ("pcie_lanes", "Width of its link now.", Kind.GAUGE, lambda v: v.pcie_width),
    ("fan_ratio", "How fast its fan turns.", Kind.GAUGE, lambda v: _scaled(v.fan_percent, 100)),
)
_USED: tuple[_Figure[JobUse], ...] = (
    ("cpu_seconds_total", "Processor time of the job.", Kind.COUNTER, lambda u: _scaled(u.cpu_ms, 1_000)),
    ("memory_bytes", "Memory that the job uses.", Kind.GAUGE, lambda u: u.memory_bytes),
    ("memory_limit_bytes", "Memory that it may use.", Kind.GAUGE, lambda u: u.memory_limit_bytes),
    ("processes", "Processes and threads of the job.", Kind.GAUGE, lambda u: u.processes),
    ("read_bytes_total", "Read from disks.", Kind.COUNTER, lambda u: u.read_bytes),
    ("written_bytes_total", "Written to disks.", Kind.COUNTER, lambda u: u.written_bytes),
    ("received_bytes_total", "Received from the network.", Kind.COUNTER, lambda u: u.received_bytes),
    ("sent_bytes_total", "Sent to the network.", Kind.COUNTER, lambda u: u.sent_bytes),
)
