"""How many jobs are matched in a second, beside a plain scan over all hosts that decides the same.

The scan is as quick as a plain loop gets: facts made ready beforehand, the limit that rules out most looked
at first, nothing asked that the job does not ask. Both sides give every job in the same order what the
policies say, and the decisions are compared one by one. Making the index and its sets is not timed with the
pass: a coordinator keeps it and is told what changes; what that costs stands beside. Times are of the
processor, so that what else runs on the machine counts less, and the garbage collector rests meanwhile, as it
does for timeit.
"""

import gc
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.report import Figure, arguments, at_least, show
from coordinator.domain.host import Gpu, Host, HostFacts, HostRoom, HostState, Isolation, Terms
from coordinator.domain.index import Index
from coordinator.domain.job import GpuRequest, HostRequest, Job, JobSpec, Policy
from coordinator.domain.matching import Placement, Request, explain, run_pass, share_of
from coordinator.domain.policy import score_of
from coordinator.domain.shelf import Ask, Machine, Moment, Shelf
from coordinator.domain.states import JobState
from coordinator.domain.turns import Lines, Turns, queue_places

SEED = 4
GIB = 1 << 30
BAR, AIM = 30.0, 70.0
# Model, GiB of memory, price of an hour in micro-credits.
MODELS = (
    ("NVIDIA GeForce RTX 3060", 12, 90_000),
    ("NVIDIA GeForce RTX 3090", 24, 180_000),
    ("NVIDIA GeForce RTX 4070", 12, 150_000),
    ("NVIDIA GeForce RTX 4090", 24, 400_000),
    ("NVIDIA RTX A6000", 48, 500_000),
    ("NVIDIA L4", 24, 350_000),
    ("NVIDIA L40S", 48, 900_000),
    ("NVIDIA A100-SXM4-40GB", 40, 1_100_000),
    ("NVIDIA A100-SXM4-80GB", 80, 1_500_000),
    ("NVIDIA H100 80GB HBM3", 80, 2_500_000),
)
WANTED = ("rtx3060", "rtx3090", "rtx4070", "rtx4090", "a6000", "l40s", "a100", "h100")
REGIONS = tuple(f"region-{n}" for n in range(8))
DRIVERS = ("525.147.05", "535.104.05", "550.54.15", "570.86.10")

Waiting = list[tuple[Job, Request]]


def hosts(count: int, rng: random.Random) -> list[HostRoom]:
    return [_room(f"host-{n:06}", rng) for n in range(count)]


def _room(host_id: str, rng: random.Random) -> HostRoom:
    model, vram_gib, price = rng.choice(MODELS)
    gpus = tuple(
        Gpu(uuid=f"GPU-{host_id}-{n}", model=model, vram_bytes=vram_gib * GIB, compute_capability="8.9")
        for n in range(rng.choice((1, 2, 4, 8)))
    )
    facts = HostFacts(
        hostname=host_id,
        cpu_count=rng.choice((8, 16, 64)),
        memory_bytes=rng.choice((32, 64, 256)) * GIB,
        disk_free_bytes=1_000 * GIB,
        isolation=Isolation.CONTAINER if rng.random() < 0.9 else Isolation.PROCESS,
        executor="",
        gpus=gpus,
        driver_version=rng.choice(DRIVERS),
        region=rng.choice(REGIONS),
        cuda_version="12.4",
        download_bps=rng.choice((None, 100_000_000, 1_000_000_000)),
    )
    host = Host(
        id=host_id,
        account_id="seller",
        account_name="seller",
        state=HostState.ONLINE if rng.random() < 0.97 else HostState.LOST,
        reason="",
        since_ms=0,
        facts=facts,
        terms=Terms(
            prices={model: price * rng.randrange(80, 121) // 100},
            run_ms_max=rng.choice((0, 0, 604_800_000, 43_200_000)),
        ),
        reliability_ppm=rng.randrange(850_000, 1_000_001),
    )
    return HostRoom(host=host, free=gpus)


def queue(count: int, rng: random.Random) -> Waiting:
    return [_waiting(f"job-{n:06}", n, rng) for n in range(count)]


def _waiting(job_id: str, number: int, rng: random.Random) -> tuple[Job, Request]:
    kind, vram = rng.random(), 0
    model = rng.choice(WANTED) if kind < 0.6 else ""
    if 0.6 <= kind < 0.9:
        vram = rng.choice((16, 24, 40, 48)) * GIB
    account = f"buyer-{rng.randrange(50)}"
    spec = JobSpec(
        name="job",
        image="image",
        command=("command",),
        gpus=GpuRequest(count=rng.choice((1, 1, 1, 2, 4, 8)), model=model, vram_bytes_min=vram),
        budget_micro=100_000_000,
        gpu_hour_price_micro_max=rng.choice((0, rng.randrange(100_000, 3_000_000))),
        run_ms_max=rng.choice((3_600_000, 86_400_000)),
        memory_bytes=rng.choice((0, 0, 16 * GIB)),
        host=HostRequest(
            regions=(rng.choice(REGIONS),) if rng.random() < 0.3 else (),
            reliability_ppm_min=rng.choice((0, 0, 950_000, 990_000)),
            driver_version_min=rng.choice(("", "", "", "535.0")),
        ),
        policy=rng.choices(list(Policy), weights=(70, 15, 5, 10))[0],
        priority=rng.choice((30, 40, 50, 60, 70)),
    )
    job = Job(
        id=job_id,
        account_id=account,
        account_name=account,
        spec=spec,
        state=JobState.QUEUED,
        cause=None,
        detail="",
        submitted_ms=number,
        queued_ms=number,
        ended_ms=0,
        charged_micro=0,
        retries_used=0,
        exit_code=None,
    )
    return job, Request(
        spec=spec, account_id=account, account_name=account, budget_left_micro=spec.budget_micro
    )


# The floor


class _Row:
    """What a plain scan keeps of a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        machine = shelf.machine
        self.host_id = machine.host_id
        self.model = shelf.model_plain
        self.vram = shelf.vram_bytes
        self.price = shelf.price
        self.free = len(shelf.free)
        self.region = machine.region
        self.reliability = machine.reliability_ppm
        self.driver = machine.driver_version
        self.memory_free = machine.memory_bytes_free
        self.run_ms_max = machine.run_ms_max
        self.scores = {policy: score_of(policy, shelf) for policy in Policy}


def scan_rows(rooms: Sequence[HostRoom]) -> list[_Row]:
    """Of hosts that could get any job of this benchmark: online, with containers."""
    machines = [Machine(room, Moment()) for room in rooms]
    return [
        _Row(shelf)
        for machine in machines
        if machine.online and machine.host.facts.isolation is Isolation.CONTAINER
        for shelf in machine.shelves
    ]


def scan(ask: Ask, policy: Policy, rows: Sequence[_Row]) -> _Row | None:
    found, found_key = None, None
    model, vram, count = ask.model, ask.vram_bytes, ask.gpu_count
    price_max, regions = min(ask.price_cap or ask.price_borne, ask.price_borne), ask.regions
    for row in rows:
        if row.free < count or row.price > price_max or row.vram < vram or model not in row.model:
            continue
        if regions and row.region not in regions:
            continue
        if (
            row.reliability < ask.reliability_ppm
            or row.driver < ask.driver_version
            or row.memory_free < ask.memory_bytes
            or row.run_ms_max < ask.run_ms
        ):
            continue
        key = (row.scores[policy], row.free, row.price, row.host_id)
        if found_key is None or key < found_key:
            found, found_key = row, key
    return found


def scan_pass(waiting: Waiting, rows: Sequence[_Row], limit: int) -> tuple[list[tuple[str, str]], float]:
    """The first `limit` decisions of a pass, job and host, and the seconds they took."""
    turns = Turns(Lines(waiting).all(), {}, {}, 0)
    decided: list[tuple[str, str]] = []
    began = time.process_time()
    for key, waiter in turns:
        if len(decided) == limit:
            break
        row = scan(key.ask, key.policy, rows)
        if row is not None:
            row.free -= key.ask.gpu_count
            row.memory_free -= key.ask.memory_bytes
            turns.given(key.account_id, key.ask.gpu_count)
        decided.append((waiter.id, "" if row is None else row.host_id))
    return decided, time.process_time() - began


# Ours


@dataclass(frozen=True, kw_only=True)
class Timed:
    per_s: float
    p99_us: float


def whole_pass(lines: Lines, index: Index) -> tuple[list[Placement], float]:
    """The coordinator keeps who waits in their lines, as it keeps the index."""
    began = time.process_time()
    placements = run_pass(Turns(lines.all(), {}, {}, 0), index, 0, [])
    return placements, time.process_time() - began


def _undo(index: Index, waiting: Waiting, placements: Sequence[Placement]) -> None:
    requests = {job.id: request for job, request in waiting}
    for placed in placements:
        index.release(share_of(requests[placed.job_id].spec, placed.host.id, placed.gpus))


def steady(waiting: Waiting, index: Index, running_max: int) -> Timed:
    """One job at a time as it is submitted, the oldest leaving as soon as so many run."""
    running: list[tuple[Request, str, tuple[Gpu, ...]]] = []
    took: list[float] = []
    first = 0
    for job, request in waiting:
        began = time.process_time()
        turns = Turns(Lines([(job, request)]).all(), {}, {}, 0)
        placements = run_pass(turns, index, 0, [], whole_queue=False)
        running += [(request, placed.host.id, placed.gpus) for placed in placements]
        if len(running) - first > running_max:
            left, host_id, gpus = running[first]
            index.release(share_of(left.spec, host_id, gpus))
            first += 1
        took.append(time.process_time() - began)
    return Timed(per_s=len(took) / sum(took), p99_us=sorted(took)[len(took) * 99 // 100] * 1e6)


def _timed(action: Callable[[], object]) -> float:
    began = time.process_time()
    action()
    return time.process_time() - began


def _fresh(waiting: Waiting) -> Waiting:
    """Requests that nobody has looked at yet."""
    return [(job, _again(request)) for job, request in waiting]


def _again(request: Request) -> Request:
    return Request(
        spec=request.spec,
        account_id=request.account_id,
        account_name=request.account_name,
        budget_left_micro=request.budget_left_micro,
    )


def measure(host_count: int, job_count: int, scanned: int, rounds: int) -> Iterator[Figure]:
    rng = random.Random(SEED)
    rooms, waiting = hosts(host_count, rng), queue(job_count, rng)
    ours_s: list[float] = []
    floor_s: list[float] = []
    index, placed, decided = Index(rooms), dict[str, str](), list[tuple[str, str]]()
    first_s = _timed(lambda: _undo(index, waiting, whole_pass(Lines(_fresh(waiting)), index)[0]))
    for _ in range(rounds):
        decided, seconds = scan_pass(_fresh(waiting), scan_rows(rooms), scanned)
        floor_s.append(seconds / len(decided))
        placements, seconds = whole_pass(Lines(_fresh(waiting)), index)
        ours_s.append(seconds / job_count)
        placed = {placement.job_id: placement.host.id for placement in placements}
        _undo(index, waiting, placements)
        differing = [job_id for job_id, host_id in decided if placed.get(job_id, "") != host_id]
        if differing:
            sys.exit(f"{len(differing)} decisions differ from the plain scan's, the first for {differing[0]}")
    where = f"{job_count:,} jobs x {host_count:,} hosts"
    ours, floor = 1 / sorted(ours_s)[rounds // 2], 1 / sorted(floor_s)[rounds // 2]
    note = f"median of {rounds}; {len(placed):,} jobs placed; {len(decided):,} decisions equal to the scan's"
    yield at_least(f"decisions/s, {where}", ours, floor, BAR, AIM, note)
    yield Figure(figure="the first pass of a new index, ms", ours=first_s * 1_000)
    one_by_one = steady(_fresh(waiting), index, job_count // 4)
    figure = f"decisions/s one by one, {job_count // 4:,} running"
    yield Figure(
        figure=figure,
        ours=one_by_one.per_s,
        floor=floor,
        ratio=one_by_one.per_s / floor,
        note=f"a pass each, and one that leaves; p99 {one_by_one.p99_us:.0f} us",
    )

    index = Index(rooms)
    whole_pass(Lines(_fresh(waiting)), index)
    left = [(job, request) for job, request in waiting if job.id not in placed]
    lines = Lines(left)
    rest = _timed(lambda: whole_pass(lines, index))
    yield Figure(figure=f"pass over {len(left):,} jobs that can't be placed, ms", ours=rest * 1_000)
    asked = left[: min(len(left), 1_000)]
    why = _timed(lambda: [explain(request, index) for _, request in asked]) / max(1, len(asked))
    yield Figure(figure="why not, ms for a job", ours=why * 1_000)
    places = _timed(lambda: queue_places(waiting, {}, {}, 0))
    yield Figure(figure=f"places of a queue of {job_count:,}, ms", ours=places * 1_000)
    yield Figure(figure="making the index, ms", ours=_timed(lambda: Index(rooms)) * 1_000)


def main() -> None:
    options = arguments(__doc__).parse_args()
    scanned, rounds = (1_000, 1) if options.quick else (10_000, 3)
    gc.disable()
    figures = list(measure(10_000, 10_000, scanned, rounds))
    show("matching", figures, as_json=options.json)
    if any(figure.ok is False for figure in figures):
        sys.exit(1)


if __name__ == "__main__":
    main()
