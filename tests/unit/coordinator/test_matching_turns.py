"""Whose turn it is: priority first, buyers in turn, and nobody waits for ever."""

from dataclasses import replace

from coordinator.domain.host import Gpu
from coordinator.domain.index import Index
from coordinator.domain.job import GpuRequest, Job
from coordinator.domain.matching import KEEP_FREE_AFTER_MS, Placement, Request, share_of
from coordinator.domain.turns import POINT_MS, Lane, Served, queue_places
from tests.support.values import GIB, MODEL, gpu, job, request, room, spec
from tests.unit.coordinator.markets import Pass, pass_over

MINUTE_MS = 60_000


def waits(
    job_id: str,
    account: str = "a",
    *,
    at_ms: int = 0,
    priority: int = 50,
    count: int = 1,
    memory_gib: int = 0,
) -> tuple[Job, Request]:
    order = spec(gpus=GpuRequest(count=count), priority=priority, memory_bytes=memory_gib * GIB)
    waiting = job(job_id, account_id=account, spec=order, submitted_ms=at_ms, queued_ms=at_ms)
    return waiting, request(spec=order, account_id=account, account_name=account)


def decide(
    queue: list[tuple[Job, Request]],
    gpu_count: int = 1,
    *,
    now_ms: int = 0,
    held: dict[str, int] | None = None,
    served: dict[Lane, Served] | None = None,
) -> Pass:
    index = Index([room(f"host_{n}") for n in range(gpu_count)])
    return pass_over(queue, index, held=held or {}, served=served or {}, now_ms=now_ms)


def order_of(outcome: Pass) -> list[str]:
    return [placement.job_id for placement in outcome.placements] + outcome.waiting


def test_the_higher_priority_goes_first_whoever_came_first():
    queue = [waits("job_1", priority=10), waits("job_2", "b", at_ms=5, priority=90)]
    assert order_of(decide(queue, now_ms=10)) == ["job_2", "job_1"]


def test_of_one_buyer_the_older_goes_first():
    assert order_of(decide([waits("job_2", at_ms=2), waits("job_1", at_ms=1)])) == ["job_1", "job_2"]


def test_a_minute_of_waiting_is_worth_a_point_of_priority():
    queue = [waits("job_old", priority=50), waits("job_new", "b", at_ms=10 * POINT_MS, priority=60)]
    now_ms = 10 * POINT_MS
    assert order_of(decide(queue, now_ms=now_ms - 1))[0] == "job_new"
    assert order_of(decide(queue, now_ms=now_ms))[0] == "job_old", "of equals the older"


def test_buyers_of_equal_priority_take_turns():
    queue = [waits(f"job_a{n}", "a", at_ms=n) for n in range(3)]
    queue += [waits(f"job_b{n}", "b", at_ms=10 + n) for n in range(3)]
    assert order_of(decide(queue, gpu_count=6)) == [
        "job_a0",
        "job_b0",
        "job_a1",
        "job_b1",
        "job_a2",
        "job_b2",
    ]


def test_who_holds_more_already_comes_later():
    queue = [waits("job_a", "a"), waits("job_b", "b", at_ms=1), waits("job_c", "c", at_ms=2)]
    assert order_of(decide(queue, held={"a": 2, "b": 1})) == ["job_c", "job_b", "job_a"]


def test_a_turn_is_as_large_as_what_was_given():
    queue = [waits("job_a1", count=1), waits("job_a2", at_ms=1), waits("job_b1", "b", at_ms=2)]
    big = waits("job_b0", "b", at_ms=1, count=4)
    index = Index([room("host_1", *(gpu(f"GPU-{n}") for n in range(8)))])
    outcome = pass_over([*queue, big], index, held={}, served={}, now_ms=0)
    assert order_of(outcome) == ["job_a1", "job_b0", "job_a2", "job_b1"]


def test_a_backlog_that_moves_gives_no_right_over_those_who_come():
    """Else a buyer who sent a thousand jobs an hour ago would shut out all who come after."""
    backlog = [waits(f"job_a{n}", "a", at_ms=n) for n in range(9)]
    now_ms = 60 * MINUTE_MS
    outcome = decide(backlog, now_ms=now_ms)
    assert outcome.placements[0].job_id == "job_a0"
    left = [*backlog[1:], waits("job_b", "b", at_ms=now_ms)]
    assert order_of(decide(left, now_ms=now_ms, held={"a": 1}, served=dict(outcome.served)))[0] == "job_b"


def test_a_job_that_was_passed_over_in_its_lane_goes_on_growing():
    served = {("a", 50): Served(at_ms=59 * MINUTE_MS, through=(5, "job_a5"))}
    queue = [waits("job_a1", "a", at_ms=1), waits("job_a9", "a", at_ms=9), waits("job_b", "b", priority=55)]
    order = order_of(decide(queue, now_ms=60 * MINUTE_MS, served=served))
    assert order == ["job_b", "job_a1", "job_a9"]
    queue[2] = waits("job_b", "b", priority=55, at_ms=60 * MINUTE_MS)
    assert order_of(decide(queue, now_ms=60 * MINUTE_MS, served=served)) == ["job_a1", "job_b", "job_a9"]


def test_the_place_in_the_queue_counts_from_one_in_the_order_of_turns():
    queue = [waits("job_a1"), waits("job_a2", at_ms=1), waits("job_b", "b", at_ms=2, priority=40)]
    assert queue_places(queue, {}, {}, 10) == {"job_a1": 1, "job_a2": 2, "job_b": 3}
    assert queue_places([*queue[:2], waits("job_b", "b", at_ms=2)], {}, {}, 10)["job_b"] == 2


def test_the_least_of_all_is_served_though_others_never_stop_coming():
    """One GPU, a job each minute, and every minute two new ones of a higher priority."""
    market = Market(gpu_count=1, job_ms=MINUTE_MS)
    market.waiting.append(waits("job_least", "poor", priority=0))
    for minute in range(300):
        now_ms = minute * MINUTE_MS
        market.waiting += [waits(f"job_{minute:03}{n}", "rich", at_ms=now_ms, priority=100) for n in "ab"]
        market.step(now_ms)
        if "job_least" in market.begun:
            break
    assert market.begun["job_least"] <= 101 * MINUTE_MS


def test_within_one_buyers_jobs_the_least_is_served_too():
    market = Market(gpu_count=1, job_ms=MINUTE_MS)
    market.waiting.append(waits("job_least", priority=0))
    for minute in range(300):
        market.waiting += [waits(f"job_{minute:03}{n}", at_ms=minute * MINUTE_MS, priority=100) for n in "ab"]
        market.step(minute * MINUTE_MS)
    assert market.begun["job_least"] <= 101 * MINUTE_MS


def test_a_job_that_needs_a_whole_host_gets_one_though_small_ones_never_stop_coming():
    market = Market(gpu_count=8, job_ms=5 * MINUTE_MS)
    for minute in range(120):
        now_ms = minute * MINUTE_MS
        if minute == 10:
            market.waiting.append(waits("job_whole", "patient", at_ms=now_ms, count=8))
        market.waiting += [waits(f"job_{minute:03}{n}", f"b{n}", at_ms=now_ms) for n in range(4)]
        market.step(now_ms)
    assert market.begun["job_whole"] <= 10 * MINUTE_MS + KEEP_FREE_AFTER_MS + 6 * MINUTE_MS


def test_a_job_that_needs_much_memory_gets_it_though_small_ones_never_stop_coming():
    market = Market(gpu_count=8, job_ms=5 * MINUTE_MS)
    market.waiting.append(waits("job_large", "patient", at_ms=MINUTE_MS, memory_gib=60))
    for minute in range(120):
        market.waiting += [
            waits(f"job_{minute:03}{n}", f"b{n}", at_ms=minute * MINUTE_MS, memory_gib=16, priority=60)
            for n in range(2)
        ]
        market.step(minute * MINUTE_MS)
    assert "job_large" in market.begun


def test_a_host_is_kept_free_only_for_one_that_waited_long_and_one_for_a_buyer():
    rooms = [
        room(f"host_{n}", gpu(f"GPU-{n}a"), gpu(f"GPU-{n}b"), free=(gpu(f"GPU-{n}a"),)) for n in range(30)
    ]
    pairs = [waits(f"job_{n}", "a", count=2) for n in range(2)]
    index = Index(rooms)
    pass_over(pairs, index, held={}, served={}, now_ms=KEEP_FREE_AFTER_MS - 1)
    assert index.kept_free_count == 0
    pass_over(pairs, index, held={}, served={}, now_ms=KEEP_FREE_AFTER_MS)
    assert index.kept_free_count == 1
    others = [waits(f"job_{account}", account, count=2) for account in "bcdefg"]
    pass_over([*pairs, *others], index, held={}, served={}, now_ms=KEEP_FREE_AFTER_MS)
    assert index.kept_free_count == 3, "no more than a tenth of the hosts stands idle"


def test_a_new_job_tried_by_itself_does_not_get_what_is_kept_free():
    index = Index([room("host_1", gpu("GPU-1"), gpu("GPU-2"), free=(gpu("GPU-1"),))])
    pass_over([waits("job_pair", count=2)], index, held={}, served={}, now_ms=KEEP_FREE_AFTER_MS)
    new = waits("job_new", "b", at_ms=KEEP_FREE_AFTER_MS)
    alone = pass_over([new], index, held={}, served={}, now_ms=KEEP_FREE_AFTER_MS, whole_queue=False)
    assert alone.waiting == ["job_new"]
    whole = pass_over([new], index, held={}, served={}, now_ms=KEEP_FREE_AFTER_MS)
    assert [placement.job_id for placement in whole.placements] == ["job_new"], "the pair is no longer there"


class Market:
    """One host of so many GPUs, and jobs that each run as long as the other."""

    def __init__(self, gpu_count: int, job_ms: int) -> None:
        self.index = Index([room("host_1", *(gpu(f"GPU-{n}") for n in range(gpu_count)))])
        self.job_ms = job_ms
        self.waiting: list[tuple[Job, Request]] = []
        self.running: list[tuple[int, Job, tuple[Gpu, ...]]] = []
        self.begun: dict[str, int] = {}
        self.served: dict[Lane, Served] = {}

    def step(self, now_ms: int) -> None:
        for ends_ms, done, gpus in [one for one in self.running if one[0] <= now_ms]:
            self.index.release(share_of(done.spec, "host_1", gpus))
            self.running.remove((ends_ms, done, gpus))
        held: dict[str, int] = {}
        for _, running, gpus in self.running:
            held[running.account_id] = held.get(running.account_id, 0) + len(gpus)
        outcome = pass_over(self.waiting, self.index, held=held, served=self.served, now_ms=now_ms)
        self.served = dict(outcome.served)
        placed = {placement.job_id: placement for placement in outcome.placements}
        for waiting, _ in self.waiting:
            if waiting.id in placed:
                self._begin(waiting, placed[waiting.id], now_ms)
        self.waiting = [one for one in self.waiting if one[0].id not in placed]

    def _begin(self, waiting: Job, placement: Placement, now_ms: int) -> None:
        self.begun[waiting.id] = now_ms
        self.running.append((now_ms + self.job_ms, waiting, placement.gpus))
        assert all(one.model == MODEL for one in placement.gpus)
        taken = [one.uuid for _, _, gpus in self.running for one in gpus]
        assert len(set(taken)) == len(taken), "a GPU was given twice"


def test_a_job_that_came_back_waits_from_then_and_stands_where_it_stood():
    back = waits("job_back", at_ms=0)
    back = replace(back[0], queued_ms=90 * MINUTE_MS), back[1]
    queue = [waits("job_b", "b", at_ms=60 * MINUTE_MS), back, waits("job_a", at_ms=90 * MINUTE_MS)]
    assert order_of(decide(queue, now_ms=90 * MINUTE_MS)) == ["job_b", "job_back", "job_a"]
