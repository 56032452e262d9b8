"""The index decides what a plain look at every host decides, whatever happened to the market before."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from coordinator.domain.host import Gpu, HostRoom, HostState
from coordinator.domain.index import Index
from coordinator.domain.job import Policy
from coordinator.domain.limits import Misfit, first_missed, fit, rows_asked
from coordinator.domain.matching import Request, best, explain, share_of
from coordinator.domain.shelf import Machine, Moment
from tests.support.values import GIB, gpu, job, request, room, spec
from tests.unit.coordinator.markets import pass_over, random_market, random_request, random_room

SEEDS = range(16)


def scanned(asked: Request, rooms: list[HostRoom]) -> tuple[str, tuple[str, ...]] | None:
    found = best(asked, rooms)
    return None if found is None else (found[0].host.id, tuple(one.uuid for one in found[1].gpus))


def indexed(asked: Request, index: Index) -> tuple[str, tuple[str, ...]] | None:
    found = best(asked, index)
    return None if found is None else (found[0].host.id, tuple(one.uuid for one in found[1].gpus))


def rooms_of(index: Index) -> list[HostRoom]:
    return [machine.room() for machine in index.machines()]


@pytest.mark.parametrize("seed", SEEDS)
def test_it_decides_as_a_plain_scan(seed):
    rng = Random(seed)
    rooms = random_market(rng, 40)
    index = Index(rooms)
    for _ in range(60):
        asked = random_request(rng)
        assert indexed(asked, index) == scanned(asked, rooms)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_stays_true_to_what_happens(seed):
    rng = Random(seed)
    index = Index(random_market(rng, 25))
    running: list[tuple[Request, str, tuple[Gpu, ...]]] = []
    for step in range(120):
        happens = rng.random()
        if happens < 0.1:
            index.put(random_room(rng, rng.randrange(30)))
        elif happens < 0.15:
            index.remove(f"host_{rng.randrange(30):03}")
        elif happens < 0.2:
            for some in rng.sample(rooms_of(index), 1):
                state = rng.choice((HostState.ONLINE, HostState.SUSPECT))
                index.put(replace(some, host=replace(some.host, state=state)))
        elif happens < 0.45 and running:
            asked, host_id, gpus = running.pop(rng.randrange(len(running)))
            index.release(share_of(asked.spec, host_id, gpus))
        asked = random_request(rng)
        decided = indexed(asked, index)
        assert decided == scanned(asked, rooms_of(index)), step
        assert decided == indexed(asked, Index(rooms_of(index))), step
        found = best(asked, index)
        if found is not None:
            host_id, gpus = found[0].host.id, found[1].gpus
            index.take(share_of(asked.spec, host_id, gpus))
            running.append((asked, host_id, gpus))


@pytest.mark.parametrize("seed", SEEDS)
def test_hosts_are_counted_as_a_plain_scan_counts_them(seed):
    rng = Random(seed)
    rooms = random_market(rng, 40)
    index = Index(rooms)
    for _ in range(40):
        asked = random_request(rng)
        misfits = [found for one in rooms if isinstance(found := fit(asked, one), Misfit)]
        why = explain(asked, index)
        assert dict(why.counts) == dict(Counter(found.limit for found in misfits))
        assert [limit for limit, _ in why.counts] == sorted(limit for limit, _ in why.counts)
        assert why.host_count == len(rooms)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pass_gives_what_scans_one_after_the_other_give(seed):
    rng = Random(seed)
    rooms = random_market(rng, 25)
    waiting = [(job(f"job_{n:03}", submitted_ms=n), random_request(rng)) for n in range(60)]
    outcome = pass_over(waiting, Index(rooms), held={}, served={}, now_ms=0)
    given = {placed.job_id: (placed.host.id, placed.gpus) for placed in outcome.placements}
    plainly = Index(rooms)
    for one, asked in waiting:
        found = best(asked, rooms_of(plainly))
        assert given.get(one.id) == (None if found is None else (found[0].host.id, found[1].gpus))
        if found is not None:
            plainly.take(share_of(asked.spec, found[0].host.id, found[1].gpus))


def test_what_was_taken_is_free_again_when_it_is_released():
    index = Index([room("host_1", gpu("GPU-1"), gpu("GPU-2"))])
    share = share_of(spec(memory_bytes=60 * GIB), "host_1", (gpu("GPU-1"),))
    index.take(share)
    assert indexed(request(), index) == ("host_1", ("GPU-2",))
    assert indexed(request(spec=spec(memory_bytes=5 * GIB)), index) is None, "its memory is promised"
    index.release(share)
    assert indexed(request(spec=spec(memory_bytes=5 * GIB)), index) == ("host_1", ("GPU-1",))


def test_a_gpu_that_two_hosts_claim_is_sold_by_one_and_free_for_both_again():
    index = Index([room("host_1", gpu("GPU-same")), room("host_2", gpu("GPU-same"))])
    share = share_of(spec(), "host_1", (gpu("GPU-same"),))
    index.take(share)
    assert indexed(request(), index) is None
    index.release(share)
    assert indexed(request(hosts_failed={"host_1"}), index) == ("host_2", ("GPU-same",))


def test_what_happens_on_a_host_that_left_is_no_matter():
    index = Index([room("host_1")])
    index.remove("host_1")
    index.remove("host_1")
    index.take(share_of(spec(), "host_1", (gpu(),)))
    index.release(share_of(spec(), "host_1", (gpu(),)))
    assert len(index) == 0
    assert index.best(request().ask, Policy.CHEAPEST) is None


@pytest.mark.parametrize("seed", SEEDS)
def test_all_that_fits_is_what_a_plain_scan_finds_in_the_policys_order(seed):
    rng = Random(seed)
    rooms = random_market(rng, 40)
    index = Index(rooms)
    for _ in range(30):
        asked = random_request(rng)
        found = [(shelf.host_id, shelf.model) for shelf in index.fitting(asked.ask, Policy.CHEAPEST)]
        rows = rows_asked(asked.ask)
        shelves = [shelf for each in rooms for shelf in Machine(each, Moment()).shelves]
        fits = [shelf for shelf in shelves if first_missed(rows, asked.ask, shelf) is None]
        assert found == [
            (shelf.host_id, shelf.model)
            for shelf in sorted(fits, key=lambda shelf: (shelf.price, shelf.host_id, shelf.model))
        ]
