"""Why a job has no host: the one change that is named helps, is the cheapest, and is said plainly."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from coordinator.domain.host import HostRoom, Isolation, Network, Terms
from coordinator.domain.hours import SaleWindow
from coordinator.domain.index import Index
from coordinator.domain.job import GpuRequest, HostRequest
from coordinator.domain.matching import Limit, Request, best, explain, why_not
from tests.support.values import GIB, MODEL, gpu, request, room, spec
from tests.unit.coordinator.markets import random_market, random_request

PAIR = room("host_1", gpu("GPU-1"), gpu("GPU-2"))
MIXED = room("host_1", gpu("GPU-1", vram_bytes=16 * GIB), gpu("GPU-2"))
OLD = room("host_1", gpu(compute_capability="8.6"))


def having(**changes: Any) -> HostRoom:
    return replace(PAIR, host=replace(PAIR.host, facts=replace(PAIR.host.facts, **changes)))


def asks(count: int = 1, **changes: Any) -> Request:
    return request(spec=spec(gpus=GpuRequest(count=count, **changes)))


def of_host(**changes: Any) -> Request:
    return request(spec=spec(host=HostRequest(**changes)))


@pytest.mark.parametrize(
    ("asked", "host", "words"),
    [
        (request(spec=spec(gpu_hour_price_micro_max=599_999)), PAIR, "raise --max-price to 0.60"),
        (
            request(spec=spec(budget_micro=100), budget_left_micro=100),
            PAIR,
            "raise --budget to 0.000167",
        ),
        (asks(count=3), PAIR, "ask for 2 GPUs instead of 3"),
        (asks(count=2), replace(PAIR, free=PAIR.free[:1]), "ask for 1 GPU instead of 2"),
        (
            asks(vram_bytes_min=48 * GIB),
            PAIR,
            "ask for 24GiB of GPU memory instead of 48GiB (--vram 24GiB)",
        ),
        (
            asks(count=2, vram_bytes_min=24 * GIB),
            MIXED,
            "ask for 16GiB of GPU memory instead of 24GiB (--vram 16GiB)",
        ),
        (
            asks(compute_capability_min="9.0"),
            OLD,
            "accept compute capability 8.6 instead of 9.0 (--cc 8.6)",
        ),
        (asks(model="H100"), PAIR, f"take a {MODEL} instead of a H100"),
        (
            request(),
            room(
                isolation=Isolation.PROCESS,
                terms=Terms(prices={MODEL: 1}, trusted_accounts=frozenset({"buyer"})),
            ),
            "accept isolation 'process' (--isolation process), on a host whose seller trusts you",
        ),
        (
            asks(model="4090"),
            room("host_1", gpu("GPU-1", simulated=True)),
            "accept simulated GPUs, which do not exist (--simulated)",
        ),
        (
            request(spec=spec(run_ms_max=86_400_000)),
            # At a Thursday's midnight, which is the moment.
            room(terms=Terms(prices={MODEL: 1}, hours=(SaleWindow(start_minute=0, end_minute=4_411),))),
            "set --max-time to 90m (now 1d)",
        ),
        (
            request(spec=spec(network=Network.INTERNET)),
            PAIR,
            "do without the network (without --network and --reach)",
        ),
        (of_host(regions=("mars",)), having(region="earth"), "accept region earth too (--region)"),
        (of_host(regions=("mars",)), PAIR, "accept any region (without --region)"),
        (
            of_host(driver_version_min="550"),
            having(driver_version="535.1"),
            "accept driver 535.1 instead of 550 (--driver 535.1)",
        ),
        (of_host(driver_version_min="550"), PAIR, "accept any driver (without --driver)"),
        (
            of_host(cuda_version_min="12.4"),
            having(cuda_version="12.2"),
            "accept CUDA 12.2 instead of 12.4 (--cuda 12.2)",
        ),
        (
            of_host(labels={"tier": "gold", "rack": "7"}),
            having(labels={"rack": "7"}),
            "do without --host-label tier=gold",
        ),
        (
            of_host(reliability_ppm_min=995_000),
            replace(PAIR, host=replace(PAIR.host, reliability_ppm=991_000)),
            "set --reliability to 99.1% (now 99.5%)",
        ),
        (
            request(spec=spec(memory_bytes=48 * GIB)),
            replace(PAIR, memory_bytes_taken=40 * GIB),
            "ask for 24GiB of memory instead of 48GiB (--memory 24GiB)",
        ),
        (
            request(spec=spec(cpu_milli=4_000)),
            replace(PAIR, cpu_milli_taken=6_500),
            "ask for 1.5 processors instead of 4 (--cpu 1.5)",
        ),
        (
            request(spec=spec(run_ms_max=86_400_000)),
            room(terms=Terms(prices={MODEL: 1}, run_ms_max=5_400_900)),
            "set --max-time to 90m (now 1d)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_kind_of_change_is_said_so_that_it_can_be_typed(asked, host, words):
    change = explain(asked, [host]).change
    assert change is not None
    assert change.words == words
    assert best(changed(asked, change.spec), [host]) is not None


def changed(asked: Request, after: Any) -> Request:
    more_micro = after.budget_micro - asked.spec.budget_micro
    return replace(asked, spec=after, budget_left_micro=asked.budget_left_micro + more_micro)


@pytest.mark.parametrize("seed", range(40))
def test_the_change_that_is_named_places_the_job(seed):
    rng = Random(seed)
    rooms = random_market(rng, 30)
    index = Index(rooms)
    for _ in range(40):
        asked = random_request(rng)
        why = explain(asked, index)
        if best(asked, rooms) is not None:
            assert why.change is None
        elif why.change is not None:
            assert best(changed(asked, why.change.spec), rooms) is not None, why.change.words


def test_a_small_rise_is_cheaper_than_half_the_gpus():
    both = asks(count=2)
    asked = replace(both, spec=replace(both.spec, gpu_hour_price_micro_max=500_000))
    rooms = [
        room("host_1", gpu("GPU-1"), price=500_000),
        room("host_2", gpu("GPU-2"), gpu("GPU-3"), price=510_000),
    ]
    change = explain(asked, rooms).change
    assert change is not None
    assert change.words == "raise --max-price to 0.51"
    assert change.price_ppm == 20_000


def test_no_change_is_named_where_none_of_the_buyers_would_help():
    assert explain(request(), [replace(PAIR, free=())]).change is None
    assert explain(request(hosts_failed={"host_1"}), [PAIR]).change is None
    assert explain(request(), []).change is None


def test_a_job_that_fits_needs_no_change_and_hosts_that_fit_are_not_counted():
    why = explain(request(), [PAIR, room("host_2", free=())])
    assert (why.change, why.host_count) == (None, 2)
    assert why.counts == [(Limit.BUSY, 1)]


def test_a_host_that_sells_nothing_is_counted_too():
    nothing = replace(PAIR, host=replace(PAIR.host, terms=Terms()))
    (count,) = why_not(request(), [nothing])
    assert (count.limit, count.host_count, count.remedy) == ("has no GPU for sale", 1, "")


def test_what_is_kept_free_for_another_counts_as_in_use():
    index = Index([PAIR])
    index.keep_free("host_1", "job_old")
    why = explain(request(), index)
    assert (why.counts, why.change) == ([(Limit.BUSY, 1)], None)
