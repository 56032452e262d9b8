"""Domain values for tests, with every field at something plain; a test names only what it is about."""

from dataclasses import replace
from typing import Any

from coordinator.domain.host import Gpu, Host, HostFacts, HostRoom, HostState, Isolation, Terms
from coordinator.domain.job import Attempt, GpuRequest, Job, JobSpec
from coordinator.domain.matching import Request
from coordinator.domain.metering import Meter, Stamp
from coordinator.domain.states import AttemptState, JobState
from runtime.evidence import GpuUse, UsageRecord, chain_start, make_record

BOOT = "boot-of-coordinator"
HOST_BOOT = "boot-of-host"
WINDOW_MS = 60_000
GIB = 1 << 30
MODEL = "NVIDIA GeForce RTX 4090"


def at(ms: int, boot_id: str = BOOT, wall_ms: int | None = None) -> Stamp:
    """A moment `ms` after the coordinator's boot; its wall clock agrees unless said otherwise."""
    return Stamp(boot_id=boot_id, boot_ms=ms, wall_ms=1_000_000 + ms if wall_ms is None else wall_ms)


def meter(**changes: Any) -> Meter:
    plain = Meter(
        attempt_id="att_1",
        epoch=1,
        hour_price_micro=3_600_000,
        fee_ppm=50_000,
        run_ms_affordable=10_000_000,
        run_ms_max=10_000_000,
        gpu_uuids=frozenset({"GPU-1"}),
        vram_bytes_max=24 * GIB,
        assigned=at(0),
    )
    return replace(plain, **changes)


def record(
    before: UsageRecord | None, end_ms: int, *, gpus: tuple[GpuUse, ...] = (), start_ms: int | None = None
) -> UsageRecord:
    """The record that follows; att_1's first when there is none before."""
    if before is None:
        return make_record(chain_start("att_1", 1), 1, start_ms or 0, end_ms, gpus)
    start = before.end_ms if start_ms is None else start_ms
    return make_record(before.digest, before.number + 1, start, end_ms, gpus)


def gpu(uuid: str = "GPU-1", **changes: Any) -> Gpu:
    return replace(Gpu(uuid=uuid, model=MODEL, vram_bytes=24 * GIB), **changes)


def room(
    host_id: str = "host_1",
    *gpus: Gpu,
    price: int = 600_000,
    state: HostState = HostState.ONLINE,
    isolation: Isolation = Isolation.CONTAINER,
    free: tuple[Gpu, ...] | None = None,
    terms: Terms | None = None,
) -> HostRoom:
    has = gpus or (gpu(f"GPU-of-{host_id}"),)
    host = Host(
        id=host_id,
        account_id="acct_seller",
        account_name="seller",
        state=state,
        reason="",
        since_ms=0,
        facts=HostFacts(
            hostname=host_id,
            cpu_count=8,
            memory_bytes=64 * GIB,
            disk_free_bytes=100 * GIB,
            isolation=isolation,
            executor="Docker Engine 28.5.2",
            gpus=has,
        ),
        terms=terms or Terms(prices={one.model: price for one in has}),
    )
    return HostRoom(host=host, free=has if free is None else free)


def spec(**changes: Any) -> JobSpec:
    plain = JobSpec(
        name="train",
        image="python:3.12",
        command=("python", "-V"),
        gpus=GpuRequest(count=1),
        budget_micro=1_000_000,
    )
    return replace(plain, **changes)


def request(**changes: Any) -> Request:
    plain = Request(spec=spec(), account_id="acct_buyer", account_name="buyer", budget_left_micro=1_000_000)
    return replace(plain, **changes)


def job(job_id: str = "job_1", **changes: Any) -> Job:
    plain = Job(
        id=job_id,
        account_id="acct_buyer",
        account_name="buyer",
        spec=spec(),
        state=JobState.QUEUED,
        cause=None,
        detail="waits",
        submitted_ms=1,
        queued_ms=1,
        ended_ms=0,
        charged_micro=0,
        retries_used=0,
        exit_code=None,
    )
    return replace(plain, **changes)


def attempt(**changes: Any) -> Attempt:
    plain = Attempt(
        id="att_1",
        job_id="job_1",
        epoch=1,
        host_id="host_1",
        seller_account_id="acct_seller",
        isolation=Isolation.CONTAINER,
        gpus=(gpu(),),
        state=AttemptState.ASSIGNED,
        meter=meter(),
    )
    return replace(plain, **changes)
