"""An agent's view of everything that there can be, so that each figure is told."""

from agent.domain.attempt import AttemptState
from agent.domain.figures import GpuView, JobView, View
from agent.domain.gpu import GpuInfo, GpuSample, GpuVitals
from agent.domain.health import HEALTHY
from agent.domain.use import HostUse, JobUse, ProcessUse, Stock

EVERYTHING = View(
    host_id="host_1",
    version="0.1.0",
    executor="Docker Engine 28",
    connected=True,
    driver_restarts=0,
    host=HostUse(
        cpu_ms=(("user", 1_500),),
        load_milli=250,
        memory_bytes=64 << 30,
        memory_available_bytes=32 << 30,
        disk_bytes=1_000,
        disk_free_bytes=500,
        disk_read_bytes=1,
        disk_written_bytes=1,
        network_received_bytes=10,
        network_sent_bytes=20,
    ),
    gpus=(
        GpuView(
            info=GpuInfo(
                uuid="MIG-1",
                model="RTX",
                vram_bytes=24 << 30,
                simulated=False,
                compute_capability="8.9",
                board_uuid="GPU-1",
            ),
            health=HEALTHY,
            sample=GpuSample(
                uuid="MIG-1",
                utilization_percent=97,
                memory_used_bytes=5 << 30,
                energy_mj_total=2**40,
                power_mw=333_500,
                temperature_c=71,
                sm_clock_mhz=2_520,
                throttle_bits=0x44,
            ),
            vitals=GpuVitals(
                ecc_corrected=0,
                ecc_uncorrected=0,
                rows_remapped=0,
                pcie_generation=4,
                pcie_width=16,
                pcie_replays=0,
                fan_percent=0,
            ),
            job="att_1",
            xids={31: 2},
        ),
    ),
    jobs=(
        JobView(
            attempt_id="att_1",
            run_ms=12_345,
            use=JobUse(
                cpu_ms=1,
                memory_bytes=1,
                memory_limit_bytes=1,
                processes=1,
                read_bytes=1,
                written_bytes=1,
                received_bytes=1,
                sent_bytes=1,
            ),
        ),
    ),
    connections=1,
    certificate_ends_ms=1,
    stock=Stock(attempts={AttemptState.RUNNING: 1}),
    process=ProcessUse(cpu_ms=1, memory_bytes=1, files=1, started_ms=1),
)
