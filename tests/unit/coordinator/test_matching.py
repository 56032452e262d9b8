"""Which host gets which job, and what is said of the others."""

from dataclasses import replace
from typing import Any

import pytest

from coordinator.domain.host import (
    GpuHealth,
    HostRoom,
    HostState,
    Isolation,
    Network,
    Terms,
    may_run_unisolated,
)
from coordinator.domain.hours import SaleWindow
from coordinator.domain.images import ImagePolicy
from coordinator.domain.index import Index
from coordinator.domain.job import GpuRequest, HostRequest
from coordinator.domain.matching import (
    Fit,
    Limit,
    LimitCount,
    Misfit,
    Request,
    best,
    fit,
    model_matches,
    why_not,
)
from tests.support.values import GIB, MODEL, gpu, job, request, room, spec
from tests.unit.coordinator.markets import pass_over

ROOM = room()
BIG = gpu("GPU-big", vram_bytes=80 * GIB, model="NVIDIA H100")
PROCESS = room(isolation=Isolation.PROCESS)


def wants(count: int = 1, model: str = "", vram_gib: int = 0) -> GpuRequest:
    return GpuRequest(count=count, model=model, vram_bytes_min=vram_gib * GIB)


def asks(**changes: Any) -> Request:
    return request(spec=spec(host=HostRequest(**changes)))


def having(**changes: Any) -> HostRoom:
    return replace(ROOM, host=replace(ROOM.host, facts=replace(ROOM.host.facts, **changes)))


# One row for each limit: what fails it, in the words that a buyer reads.
ROWS = {
    Limit.AWAY: (
        request(),
        room(state=HostState.SUSPECT),
        "takes no new jobs now: it is away, paused or held back",
        "",
    ),
    Limit.IMAGE: (
        request(spec=spec(image="", isolation_min=Isolation.PROCESS)),
        ROOM,
        "runs containers, and the job names no image",
        "an image",
    ),
    Limit.MODEL: (
        request(spec=spec(gpus=wants(model="H100"))),
        ROOM,
        "has no H100 for sale",
        "another GPU model",
    ),
    Limit.VRAM: (
        request(spec=spec(gpus=wants(vram_gib=48))),
        ROOM,
        "has less than 48GiB of GPU memory",
        "24GiB would do",
    ),
    Limit.COMPUTE_CAPABILITY: (
        request(spec=spec(gpus=GpuRequest(count=1, compute_capability_min="9.0"))),
        room("host_1", gpu(compute_capability="8.9")),
        "has compute capability below 9.0",
        "8.9 would do",
    ),
    Limit.COUNT: (request(spec=spec(gpus=wants(count=2))), ROOM, "has fewer than 2 such GPUs", "1 would do"),
    Limit.FAILED_BEFORE: (request(hosts_failed={"host_1"}), ROOM, "failed this job before", ""),
    Limit.ISOLATION: (
        request(),
        PROCESS,
        "gives no container isolation",
        "isolation 'process' would do, where you are trusted",
    ),
    Limit.TRUST: (
        request(spec=spec(isolation_min=Isolation.PROCESS)),
        PROCESS,
        "runs jobs without isolation, and its seller has not named you as trusted",
        "",
    ),
    Limit.SIMULATED: (
        request(spec=spec(gpus=GpuRequest(count=1, model="4090"))),
        room("host_1", gpu("GPU-1", simulated=True)),
        "has GPUs of that name that are only simulated",
        "simulated ones would do, with --simulated",
    ),
    Limit.IMAGE_POLICY: (
        request(),
        room(terms=Terms(prices={MODEL: 1}, images=ImagePolicy(allowed=("team/*", "other")))),
        "takes no image python:3.12, by its seller's rule",
        "other, team/* would do",
    ),
    Limit.HOURS: (
        request(),
        # The tests' moment is a Thursday's midnight.
        room(
            terms=Terms(
                prices={MODEL: 1},
                hours=(SaleWindow(start_minute=3 * 1_440, end_minute=3 * 1_440 + 121),),
            )
        ),
        "closes, by its seller's hours, before a job of 1d is over",
        "2h would do now",
    ),
    Limit.NETWORK: (
        request(spec=spec(network=Network.INTERNET)),
        ROOM,
        "lets no job reach the internet",
        "no network would do",
    ),
    Limit.REGION: (
        asks(regions=("mars", "venus")),
        having(region="earth"),
        "is not in mars or venus",
        "there are hosts in earth",
    ),
    Limit.DRIVER: (
        asks(driver_version_min="550.54"),
        having(driver_version="535.104.5"),
        "has a driver older than 550.54",
        "535.104.5 would do",
    ),
    Limit.CUDA: (
        asks(cuda_version_min="12.4"),
        having(cuda_version="12.2"),
        "takes no CUDA as new as 12.4",
        "12.2 would do",
    ),
    Limit.LABELS: (
        asks(labels={"tier": "gold", "rack": "7"}),
        having(labels={"rack": "7"}),
        "lacks a label of rack=7, tier=gold",
        "",
    ),
    Limit.RELIABILITY: (
        asks(reliability_ppm_min=995_000),
        replace(ROOM, host=replace(ROOM.host, reliability_ppm=980_000)),
        "has a reliability below 99.5%",
        "98% would do",
    ),
    Limit.MEMORY: (
        request(spec=spec(memory_bytes=65 * GIB)),
        ROOM,
        "has less than 65GiB of memory",
        "64GiB would do",
    ),
    Limit.CPU: (
        request(spec=spec(cpu_milli=8_500)),
        ROOM,
        "has fewer than 8.5 processors",
        "8 would do",
    ),
    Limit.PRICE: (
        request(spec=spec(gpu_hour_price_micro_max=300_000)),
        ROOM,
        "asks more than 0.30 credits per GPU-hour",
        "0.60 would do",
    ),
    Limit.RUN_TIME: (
        request(spec=spec(run_ms_max=7_200_000)),
        room(terms=Terms(prices={MODEL: 1}, run_ms_max=3_600_000)),
        "takes no job as long as 2h",
        "1h would do",
    ),
    Limit.BUDGET: (
        request(budget_left_micro=166),
        ROOM,
        "costs more for its first second than the budget holds",
        "0.000001 more would do",
    ),
    Limit.BUSY: (request(), room(free=()), "has what is asked for, but it is in use", ""),
}


@pytest.mark.parametrize("limit", Limit, ids=lambda limit: limit.name)
def test_each_limit_is_found_and_said(limit):
    asked, host, words, remedy = ROWS[limit]
    found = fit(asked, host)
    assert isinstance(found, Misfit)
    assert found.limit is limit
    assert why_not(asked, [host]) == [LimitCount(limit=words, host_count=1, remedy=remedy)]


@pytest.mark.parametrize(
    ("limit", "changed"),
    [
        (Limit.VRAM, {"spec": spec(gpus=wants(vram_gib=24))}),
        (Limit.COUNT, {"spec": spec(gpus=wants(count=1))}),
        (Limit.PRICE, {"spec": spec(gpu_hour_price_micro_max=600_000)}),
        (Limit.RUN_TIME, {"spec": spec(run_ms_max=3_600_000)}),
        (Limit.BUDGET, {"budget_left_micro": 167}),
    ],
    ids=lambda value: value.name if isinstance(value, Limit) else "",
)
def test_the_remedy_that_is_named_helps(limit, changed):
    _, host, _, _ = ROWS[limit]
    assert isinstance(fit(request(**changed), host), Fit)


def test_a_host_counts_at_the_first_limit_that_it_fails():
    """So the counts add up to the hosts that were looked at."""
    worst = room(state=HostState.LOST, isolation=Isolation.PROCESS, free=())
    hosts = [worst, *(host for asked, host, _, _ in ROWS.values() if asked == request())]
    rooms = [replace(host, host=replace(host.host, id=f"host_{n}")) for n, host in enumerate(hosts)]
    counts = why_not(request(), rooms)
    assert sum(count.host_count for count in counts) == len(rooms)
    assert (counts[0].limit, counts[0].host_count) == (ROWS[Limit.AWAY][2], 2)


def test_of_several_the_easiest_remedy_is_named():
    asked = request(spec=spec(gpu_hour_price_micro_max=300_000))
    (count,) = why_not(asked, [room("host_1", price=900_000), room("host_2", price=400_000)])
    assert (count.host_count, count.remedy) == (2, "0.40 would do")


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ("rtx4090", True),
        ("RTX 4090", True),
        ("4090", True),
        ("geforce-rtx", True),
        ("", True),
        ("h100", False),
        ("40900", False),
    ],
)
def test_a_model_is_found_by_a_part_of_its_name(wanted, matches):
    assert model_matches(MODEL, wanted) is matches


def test_without_isolation_only_for_whom_the_seller_trusts():
    own = room(isolation=Isolation.PROCESS).host
    trusting = replace(own, terms=Terms(trusted_accounts=frozenset({"friend"})))
    assert may_run_unisolated(own, "acct_seller", "seller")
    assert may_run_unisolated(trusting, "acct_x", "friend")
    assert not may_run_unisolated(trusting, "acct_x", "stranger")
    assert not may_run_unisolated(own, "acct_x", "seller"), "a name is no proof of who one is"


def test_whoever_demands_isolation_never_lands_without():
    trusting = room(
        isolation=Isolation.PROCESS,
        terms=Terms(prices={MODEL: 1}, trusted_accounts=frozenset({"buyer"})),
    )
    assert fit(request(), trusting) == Misfit(limit=Limit.ISOLATION)
    assert isinstance(fit(request(spec=spec(isolation_min=Isolation.PROCESS)), trusting), Fit)


def test_a_model_without_a_price_is_not_for_sale():
    only_big = room("host_1", gpu(), BIG, terms=Terms(prices={BIG.model: 5}))
    found = fit(request(), only_big)
    assert isinstance(found, Fit)
    assert found.gpus == (BIG,)


def test_gpus_of_a_job_are_of_one_model_the_cheapest_with_enough_free():
    both = room("host_1", gpu("GPU-1"), gpu("GPU-2"), BIG, terms=Terms(prices={MODEL: 5, BIG.model: 3}))
    assert fit(request(), both) == Fit(gpus=(BIG,), gpu_hour_price_micro=3)
    pair = fit(request(spec=spec(gpus=wants(count=2))), both)
    assert isinstance(pair, Fit)
    assert ({one.uuid for one in pair.gpus}, pair.gpu_hour_price_micro) == ({"GPU-1", "GPU-2"}, 5)
    assert isinstance(fit(request(spec=spec(gpus=wants(count=3))), both), Misfit)


def test_when_the_cheaper_model_is_busy_the_dearer_one_serves_within_the_cap():
    both = room(
        "host_1", gpu("GPU-1"), BIG, terms=Terms(prices={MODEL: 5, BIG.model: 3}), free=(gpu("GPU-1"),)
    )
    assert fit(request(), both) == Fit(gpus=(gpu("GPU-1"),), gpu_hour_price_micro=5)
    assert fit(request(spec=spec(gpu_hour_price_micro_max=4)), both) == Misfit(limit=Limit.BUSY)


def test_cheapest_first_then_the_fullest_host():
    cheap, dear = room("host_1", price=2), room("host_2", price=3)
    assert best(request(), [dear, cheap]) == (cheap, Fit(gpus=cheap.free, gpu_hour_price_micro=2))
    wide = room("host_0", gpu("GPU-1"), gpu("GPU-2"), price=2)
    found = best(request(), [wide, cheap])
    assert found is not None
    assert found[0] is cheap, "big slots stay whole"


def test_a_pass_gives_no_gpu_twice_and_keeps_the_queues_order():
    queue = [(job(f"job_{n}"), request()) for n in (1, 2, 3)]
    outcome = pass_over(queue, Index([room("host_1"), room("host_2")]))
    placements, waiting = outcome.placements, outcome.waiting
    assert [p.job_id for p in placements] == ["job_1", "job_2"]
    assert len({one.uuid for p in placements for one in p.gpus}) == 2
    assert waiting == ["job_3"]


def test_a_gpu_that_two_hosts_claim_is_given_once():
    """A host that claimed another's GPU made every pass fail, and nobody was placed any more."""
    rooms = [room("host_1", gpu("GPU-same")), room("host_2", gpu("GPU-same"))]
    outcome = pass_over([(job("job_1"), request()), (job("job_2"), request())], Index(rooms))
    placements, waiting = outcome.placements, outcome.waiting
    assert ([p.job_id for p in placements], waiting) == (["job_1"], ["job_2"])


def test_the_price_is_for_all_gpus_together():
    pairs = Index([room("host_1", gpu("GPU-1"), gpu("GPU-2"), price=7)])
    (placement,) = pass_over([(job(), request(spec=spec(gpus=wants(count=2))))], pairs).placements
    assert placement.hour_price_micro == 14


def test_a_gpu_that_is_not_healthy_is_not_for_sale():
    first, second = gpu("GPU-1"), gpu("GPU-2")
    for health in (GpuHealth.DEGRADED, GpuHealth.LOST):
        sick = room("host_1", first, replace(second, health=health, health_reason="XID 79"))
        found = fit(request(), sick)
        assert isinstance(found, Fit)
        assert found.gpus == (first,)
        assert fit(request(spec=spec(gpus=wants(2))), sick) == Misfit(limit=Limit.COUNT)
        gone = room("host_1", replace(first, health=health))
        assert fit(request(), gone) == Misfit(limit=Limit.MODEL)
