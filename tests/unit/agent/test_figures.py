"""What the agent tells Prometheus: all that is known, nothing that is not, nothing of what is over."""

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from agent.domain.exposition import Family, Kind, Sample, render
from agent.domain.figures import GpuView, JobView, View, families
from agent.domain.gpu import GpuInfo, GpuSample, GpuVitals
from agent.domain.health import HEALTHY, Condition, GpuHealth
from agent.domain.use import HostUse, JobUse

INFO = GpuInfo(uuid="GPU-1", model="RTX", vram_bytes=24 << 30, simulated=False, compute_capability="8.9")
GPU = GpuView(
    info=INFO,
    health=HEALTHY,
    sample=GpuSample(
        uuid="GPU-1",
        utilization_percent=97,
        memory_used_bytes=5 << 30,
        energy_mj_total=2**40,
        power_mw=333_500,
        temperature_c=71,
        sm_clock_mhz=2_520,
        throttle_bits=0x44,
    ),
    vitals=GpuVitals(rows_remapped=2, fan_percent=30),
    job="att_1",
    xids={31: 2, 79: 1},
)
HOST = HostUse(
    cpu_ms=(("user", 1_500), ("idle", 99_000)),
    load_milli=250,
    memory_bytes=64 << 30,
    memory_available_bytes=32 << 30,
    disk_bytes=1000,
    disk_free_bytes=500,
    disk_read_bytes=None,
    disk_written_bytes=None,
    network_received_bytes=10,
    network_sent_bytes=20,
)
VIEW = View(
    host_id="host_1",
    version="0.1.0",
    executor='Docker "28"\\x\n',
    connected=True,
    driver_restarts=3,
    host=HOST,
    gpus=(GPU,),
    jobs=(JobView(attempt_id="att_1", run_ms=12_345, use=JobUse(cpu_ms=2_500, memory_bytes=7)),),
)


def told(view: View) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every figure, read as Prometheus reads it, without the label that all have."""
    figures = {}
    for family in text_string_to_metric_families(render(families(view))):
        for sample in family.samples:
            assert sample.labels.pop("host") == "host_1"
            key = (sample.name.removeprefix("usance_"), tuple(sorted(sample.labels.items())))
            assert key not in figures
            figures[key] = sample.value
    return figures


AT = (("gpu", "GPU-1"), ("job", "att_1"))


def test_everything_that_is_known_is_told_with_host_gpu_and_job():
    figures = told(VIEW)
    assert figures["agent_connected", ()] == 1
    assert figures["driver_restarts_total", ()] == 3
    assert figures["host_cpu_seconds_total", (("mode", "user"),)] == 1.5
    assert figures["host_load1", ()] == 0.25
    assert figures["host_network_sent_bytes_total", ()] == 20
    assert {name: figures[f"gpu_{name}", AT] for name in ("utilization_ratio", "power_watts")} == {
        "utilization_ratio": 0.97,
        "power_watts": 333.5,
    }
    assert figures["gpu_energy_joules_total", AT] == 2**40 / 1_000
    assert figures["gpu_sm_clock_hertz", AT] == 2_520_000_000
    assert figures["gpu_slowed", (*AT, ("reason", "power_cap"))] == 1
    assert figures["gpu_slowed", (*AT, ("reason", "power_brake"))] == 0
    assert figures["gpu_xids_total", (*AT, ("xid", "31"))] == 2
    assert figures["gpu_rows_remapped_total", AT] == 2
    assert figures["gpu_health", (("condition", "healthy"), ("gpu", "GPU-1"))] == 1
    assert figures["gpu_info", (("gpu", "GPU-1"), ("model", "RTX"), ("simulated", "false"))] == 1
    assert figures["job_run_seconds", (("job", "att_1"),)] == 12.345
    assert figures["job_cpu_seconds_total", (("job", "att_1"),)] == 2.5
    (agent,) = [key for key in figures if key[0] == "agent_info"]
    assert dict(agent[1])["executor"] == VIEW.executor


def test_what_is_not_told_is_absent_never_zero():
    names = {name for name, _ in told(VIEW)}
    assert not names & {
        "gpu_ecc_uncorrected_total",
        "gpu_pcie_replays_total",
        "host_disk_read_bytes_total",
        "job_memory_limit_bytes",
        "job_sent_bytes_total",
    }


def test_a_gpu_that_does_not_answer_keeps_its_health_and_no_figures():
    silent = replace(
        GPU, health=GpuHealth(condition=Condition.LOST, reason="x"), sample=None, vitals=None, xids={}
    )
    figures = told(replace(VIEW, gpus=(silent,)))
    assert figures["gpu_health", (("condition", "lost"), ("gpu", "GPU-1"))] == 1
    assert figures["gpu_health", (("condition", "healthy"), ("gpu", "GPU-1"))] == 0
    assert {name for name, _ in figures if name.startswith("gpu_")} == {
        "gpu_health",
        "gpu_info",
        "gpu_memory_bytes",
    }


def test_nothing_is_told_of_a_job_that_has_ended():
    figures = told(replace(VIEW, jobs=(), gpus=(replace(GPU, job=""),)))
    assert not [key for key in figures if "att_1" in str(key)]
    assert figures["gpu_power_watts", (("gpu", "GPU-1"),)] == 333.5


def test_a_simulated_gpu_and_a_slice_say_so():
    infos = (
        replace(INFO, uuid="SIMULATED-1", simulated=True),
        replace(INFO, uuid="MIG-1", board_uuid="GPU-1"),
    )
    figures = told(replace(VIEW, gpus=tuple(replace(GPU, info=info) for info in infos)))
    labels = [dict(labels) for name, labels in figures if name == "gpu_info"]
    assert [(each["gpu"], each["simulated"], each.get("board")) for each in labels] == [
        ("SIMULATED-1", "true", None),
        ("MIG-1", "false", "GPU-1"),
    ]


def test_numbers_are_written_as_they_are():
    values = (2**40, 0.1, 1e300, float("inf"), float("-inf"), -3)
    samples = tuple(Sample(labels={"n": str(n)}, value=value) for n, value in enumerate(values))
    text = render([Family(name="x", help="a\nb", kind=Kind.GAUGE, samples=samples)])
    (family,) = text_string_to_metric_families(text)
    assert tuple(sample.value for sample in family.samples) == values
    assert "1099511627776" in text
    assert render([Family(name="x", help="", kind=Kind.GAUGE, samples=())]) == ""
