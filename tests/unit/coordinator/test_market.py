"""The market in memory: whatever happened to it, it is as if it had been made just now."""

from dataclasses import replace
from random import Random

import pytest

from coordinator.domain.host import HostRoom, HostState
from coordinator.domain.index import Index
from coordinator.domain.job import GpuRequest, Job, Policy
from coordinator.domain.market import LINES_A_BUYER_MAX, LOOKS_AT_ONCE_MAX, Holding, Market
from coordinator.domain.matching import Request, share_of
from tests.support.values import attempt, gpu, job, request, room, spec
from tests.unit.coordinator.markets import random_request, random_room

HOUR_MS = 3_600_000


def looks_of(index: Index) -> object:
    """All that decides of an index."""
    hosts = {m.host_id: (m.room(), m.online, m.reliability_ppm, m.kept_free) for m in index.machines()}
    orders = {
        policy: (
            [(shelf.host_id, shelf.model, shelf.free) for shelf in index.order(policy).shelves],
            [index.order(policy).free(n) for n in range(1, 9)],
            index.order(policy).online,
        )
        for policy in Policy
    }
    return hosts, orders, index.online_count


def rebuilt(market: Market) -> Index:
    return Index(machine.room() for machine in market.index.machines())


class Driver:
    """What a database would say, beside the market that is told of every change."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.market = Market()
        self.rooms: dict[str, HostRoom] = {}
        self.held: dict[str, Holding] = {}
        self.waiting: dict[str, tuple[Job, Request]] = {}
        self.now_ms = 0

    def room(self, host_id: str) -> HostRoom:
        plain = self.rooms[host_id]
        mine = [holding.share for holding in self.held.values() if holding.share.host_id == host_id]
        used = {one.uuid for share in mine for one in share.gpus}
        return replace(
            plain,
            free=tuple(one for one in plain.host.facts.gpus if one.uuid not in used),
            memory_bytes_taken=sum(share.memory_bytes for share in mine),
            cpu_milli_taken=sum(share.cpu_milli for share in mine),
        )

    def put(self, host_id: str) -> None:
        of = {key: holding for key, holding in self.held.items() if holding.share.host_id == host_id}
        self.market.put_host(self.room(host_id), of)

    def step(self) -> None:
        happens, rng = self.rng.random(), self.rng
        self.now_ms += rng.randrange(1, 60_000)
        if happens < 0.15:
            number = rng.randrange(12)
            fresh = random_room(rng, number)
            # Hours open without anything happening: that is for the whole look.
            terms = replace(fresh.host.terms, hours=())
            fresh = replace(fresh, host=replace(fresh.host, terms=terms))
            host_id = fresh.host.id
            if not any(holding.share.host_id == host_id for holding in self.held.values()):
                self.rooms[host_id] = fresh
                self.put(host_id)
        elif happens < 0.25 and self.rooms:
            host_id = rng.choice(sorted(self.rooms))
            state = rng.choice((HostState.ONLINE, HostState.SUSPECT))
            plain = self.rooms[host_id]
            self.rooms[host_id] = replace(plain, host=replace(plain.host, state=state))
            self.put(host_id)
        elif happens < 0.35 and self.rooms:
            host_id, ppm = rng.choice(sorted(self.rooms)), rng.randrange(700_000, 1_000_000)
            plain = self.rooms[host_id]
            self.rooms[host_id] = replace(plain, host=replace(plain.host, reliability_ppm=ppm))
            self.market.rate_host(host_id, ppm)
        elif happens < 0.6 and self.held:
            gone = rng.choice(sorted(self.held))
            del self.held[gone]
            self.market.release(gone)
            self.market.release(gone)
        elif happens < 0.65 and self.waiting:
            gone = rng.choice(sorted(self.waiting))
            del self.waiting[gone]
            self.market.leave(gone)
            self.market.leave(gone)
        else:
            asked = random_request(rng)
            name = f"job_{self.now_ms:09}"
            one = job(name, spec=asked.spec, submitted_ms=self.now_ms, queued_ms=self.now_ms)
            self.waiting[name] = one, asked
            self.market.wait(one, asked)
            self.market.wait(one, asked)
        self.match(whole=rng.random() < 0.1)

    def match(self, *, whole: bool) -> None:
        decided = self.market.match(self.now_ms, whole=whole)
        assert not decided.broken
        for placement in decided.placements:
            one, asked = self.waiting.pop(placement.job_id)
            free = {gpu.uuid for gpu in self.room(placement.host.id).free}
            assert {gpu.uuid for gpu in placement.gpus} <= free, "what is free, and nothing twice"
            share = share_of(asked.spec, placement.host.id, placement.gpus)
            holding = Holding(share=share, account_id=one.account_id)
            self.held[f"att_{one.id}"] = holding
            self.market.assigned(f"att_{one.id}", holding)


@pytest.mark.parametrize("seed", range(25))
def test_after_whatever_happened_it_is_as_if_made_anew(seed: int) -> None:
    driver = Driver(seed)
    for _ in range(150):
        driver.step()
        market = driver.market
        assert market.holdings == driver.held
        assert set(market.lines) == driver.waiting.keys()
    market.index.lift_all()
    assert looks_of(market.index) == looks_of(rebuilt(market))
    anew = Index(driver.room(host_id) for host_id in driver.rooms)
    for one, asked in driver.waiting.values():
        best, best_anew = (index.best(asked.ask, one.spec.policy) for index in (market.index, anew))
        assert (best and best.host_id) == (best_anew and best_anew.host_id)


@pytest.mark.parametrize("seed", range(25))
def test_nobody_waits_who_could_be_helped(seed: int) -> None:
    """What happens is acted on at once: a look at all who wait, right after, finds nothing left to do."""
    driver = Driver(seed)
    for _ in range(100):
        driver.step()
        driver.market.index.lift_all()
        driver.match(whole=False)
        for one, asked in driver.waiting.values():
            # Those that are put aside in a whole look for who waited long may come free only in the next.
            assert driver.market.index.best(asked.ask, one.spec.policy) is None or driver.market.is_stirred


def wants(name: str, at_ms: int = 0, account: str = "a", **changes: object) -> tuple[Job, Request]:
    order = spec(**changes)
    one = job(name, account_id=account, spec=order, submitted_ms=at_ms, queued_ms=at_ms)
    return one, request(spec=order, account_id=account)


def test_a_long_queue_hides_nobody_behind_it() -> None:
    """Only the first thousand jobs were looked at: what stood behind them waited for ever."""
    market = Market()
    for n in range(5_000):
        market.wait(*wants(f"job_{n:05}", n, gpus=GpuRequest(count=8)))
    market.wait(*wants("job_small", 9_999, account="b"))
    assert market.match(10_000, whole=True).placements == []
    market.put_host(room("host_1", gpu("GPU-1"), gpu("GPU-2")), {})
    assert [placed.job_id for placed in market.match(10_000).placements] == ["job_small"]
    market.wait(*wants("job_mine", 10_000))
    assert [placed.job_id for placed in market.match(10_000).placements] == ["job_mine"]


def test_each_of_a_thousand_different_orders_has_its_turn() -> None:
    market = Market()
    count = 3 * LINES_A_BUYER_MAX
    for n in range(count):
        market.wait(*wants(f"job_{n:05}", n, memory_bytes=(1 << 50) + n))
    market.wait(*wants("job_small", count, gpus=GpuRequest(count=1)))
    market.put_host(room("host_1"), {})
    found = [market.match(count + n, whole=True).placements for n in range(4)]
    assert sum(len(placements) for placements in found) == 1


def test_so_many_different_orders_do_not_hold_up_what_is_acted_on_at_once() -> None:
    market, tried = Market(), 0
    for n in range(2 * LOOKS_AT_ONCE_MAX):
        market.wait(*wants(f"job_{n:05}", n, account=f"a{n % 100}", memory_bytes=(1 << 50) + n))
    market.put_host(room("host_1"), {})
    plainly = market.index.best

    def counted(*asked: object) -> object:
        nonlocal tried
        tried += 1
        return plainly(*asked)  # type: ignore[arg-type]

    market.index.best = counted  # type: ignore[method-assign, assignment]
    market.match(0)
    assert tried == LOOKS_AT_ONCE_MAX
    market.match(0, whole=True)
    assert tried == 3 * LOOKS_AT_ONCE_MAX


def test_a_job_that_can_not_be_looked_at_stops_nobody() -> None:
    market = Market()
    market.put_host(room("host_1"), {})
    strange, asked = wants("job_strange")
    asked.__dict__["_ask"] = asked.ask._replace(vram_bytes="much", gpu_count=1)  # type: ignore[arg-type]
    market.wait(strange, asked)
    market.wait(*wants("job_plain", 1))
    decided = market.match(2)
    assert [job_id for job_id, _ in decided.broken] == ["job_strange"]
    assert [placed.job_id for placed in decided.placements] == ["job_plain"]


def test_what_is_taken_elsewhere_is_known_until_it_is_over() -> None:
    market = Market()
    market.put_host(room("host_1", gpu("GPU-1")), {})
    other = attempt()
    market.take(other, job())
    market.take(other, job())
    market.wait(*wants("job_2"))
    assert market.match(0).placements == []
    market.release(other.id)
    assert [placed.job_id for placed in market.match(0).placements] == ["job_2"]


def test_a_host_that_is_gone_holds_nothing() -> None:
    market = Market()
    market.put_host(room("host_1", gpu("GPU-1")), {})
    market.take(attempt(), job())
    market.remove_host("host_1")
    assert market.holdings == {}
    assert market.hosts_between("", "") == []


def test_who_would_not_wait_any_longer_is_known() -> None:
    market = Market()
    market.wait(*wants("job_1", 5, queue_ms_max=10))
    market.wait(*wants("job_2", 5))
    assert market.expired(14) == []
    assert market.expired(15) == ["job_1"]
    market.leave("job_1")
    assert market.expired(HOUR_MS) == []
