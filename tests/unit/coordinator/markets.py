"""Random markets in which everything happens: mixed hosts, trust, labels, hosts away or half taken."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from coordinator.domain.host import Gpu, HostRoom, HostState, Isolation, Network, Terms
from coordinator.domain.hours import SaleWindow
from coordinator.domain.images import ANY_IMAGE, ImagePolicy
from coordinator.domain.index import Index
from coordinator.domain.job import GpuRequest, HostRequest, Job, Policy
from coordinator.domain.matching import Placement, Request, run_pass
from coordinator.domain.turns import Lane, Lines, Served, Turns, after_serving
from tests.support.values import GIB, request, room, spec

MODELS = {"RTX 3060": 90, "RTX 4090": 400, "A100": 1_000, "H100": 2_500}
REGIONS = ("", "north", "south")
LABELS: tuple[dict[str, str], ...] = ({}, {"tier": "gold"}, {"tier": "gold", "rack": "7"})
DESTINATIONS = (("example.org",), ("example.org:443", "10.0.0.0/8"))
# At a Thursday's midnight, which is the moment: always, closed, for two hours and a bit, for two days.
HOURS = (
    (),
    (),
    (SaleWindow(start_minute=0, end_minute=60),),
    (SaleWindow(start_minute=3 * 1_440, end_minute=3 * 1_440 + 123),),
    (SaleWindow(start_minute=2 * 1_440, end_minute=5 * 1_440),),
)
DRIVERS = ("", "535.104", "550.54.15")


def random_room(rng: Random, number: int) -> HostRoom:
    host_id = f"host_{number:03}"
    gpus = tuple(
        Gpu(
            uuid=f"GPU-{host_id}-{model}-{n}",
            model=model,
            vram_bytes=rng.choice((12, 24, 24, 80)) * GIB,
            compute_capability=rng.choice(("8.6", "8.9", "9.0")),
            simulated=rng.random() < 0.1,
        )
        for model in rng.sample(sorted(MODELS), rng.choice((1, 1, 1, 2)))
        for n in range(rng.choice((1, 2, 4, 8)))
    )
    if rng.random() < 0.6:
        gpus = tuple(replace(gpu, vram_bytes=24 * GIB, compute_capability="8.9") for gpu in gpus)
    prices = {gpu.model: MODELS[gpu.model] * rng.choice((9, 10, 10, 11)) for gpu in gpus}
    if rng.random() < 0.1:
        prices.popitem()
    plain = room(
        host_id,
        *gpus,
        state=HostState.ONLINE if rng.random() < 0.9 else HostState.PAUSED,
        isolation=rng.choice((Isolation.CONTAINER, Isolation.CONTAINER, Isolation.PROCESS)),
        free=tuple(gpu for gpu in gpus if rng.random() < 0.7),
        terms=Terms(
            prices=prices,
            run_ms_max=rng.choice((0, 3_600_500)),
            trusted_accounts=frozenset(rng.choice(((), ("buyer",)))),
            network_max=(most := rng.choice(list(Network))),
            network_destinations=rng.choice(DESTINATIONS) if most is Network.ALLOW_LIST else (),
            hours=rng.choice(HOURS),
            images=rng.choice((ANY_IMAGE, ANY_IMAGE, ImagePolicy(denied=("python",)))),
        ),
    )
    facts = replace(
        plain.host.facts,
        region=rng.choice(REGIONS),
        labels=rng.choice(LABELS),
        driver_version=rng.choice(DRIVERS),
        cuda_version=rng.choice(("12.2", "12.4")),
        download_bps=rng.choice((None, 10**8, 10**9)),
        memory_bytes=rng.choice((32, 64)) * GIB,
    )
    host = replace(plain.host, facts=facts, reliability_ppm=rng.choice((800_000, 951_234, 999_000)))
    return replace(plain, host=host, memory_bytes_taken=rng.choice((0, 0, 16 * GIB)))


def random_market(rng: Random, host_count: int) -> list[HostRoom]:
    return [random_room(rng, number) for number in range(host_count)]


def random_request(rng: Random) -> Request:
    def maybe(part: float, value: Any, otherwise: Any) -> Any:
        return value if rng.random() < part else otherwise

    network = maybe(0.3, rng.choice(list(Network)), Network.NONE)
    return request(
        spec=spec(
            gpus=GpuRequest(
                count=rng.choice((1, 1, 2, 3, 8)),
                model=maybe(0.6, rng.choice(("rtx", "rtx4090", "a100", "h100", "v100")), ""),
                vram_bytes_min=maybe(0.3, rng.choice((20, 40)) * GIB, 0),
                compute_capability_min=maybe(0.2, rng.choice(("8.9", "9.0")), ""),
                simulated=maybe(0.2, True, False),  # noqa: FBT003 -- a value
            ),
            isolation_min=maybe(0.3, Isolation.PROCESS, Isolation.CONTAINER),
            gpu_hour_price_micro_max=maybe(0.5, rng.randrange(500, 25_000), 0),
            run_ms_max=rng.choice((3_600_000, 86_400_000)),
            memory_bytes=maybe(0.3, rng.randrange(16, 65) * GIB, 0),
            cpu_milli=maybe(0.2, 8_100, 0),
            host=HostRequest(
                regions=maybe(0.2, rng.choice((("north",), ("north", "south"))), ()),
                labels=maybe(0.2, rng.choice(LABELS), {}),
                driver_version_min=maybe(0.2, "550.0", ""),
                cuda_version_min=maybe(0.2, "12.4", ""),
                reliability_ppm_min=maybe(0.3, rng.choice((900_000, 951_235)), 0),
            ),
            policy=rng.choice(list(Policy)),
            network=network,
            network_destinations=rng.choice(DESTINATIONS) if network is Network.ALLOW_LIST else (),
        ),
        budget_left_micro=maybe(0.1, rng.randrange(1, 10), 1_000_000),
        hosts_failed=frozenset(maybe(0.1, ("host_000", "host_001"), ())),
    )


@dataclass(frozen=True, kw_only=True)
class Pass:
    placements: list[Placement]
    # In the order in which they would be looked at next.
    waiting: list[str]
    served: dict[Lane, Served]


def pass_over(
    queue: list[tuple[Job, Request]],
    index: Index,
    *,
    held: Mapping[str, int] | None = None,
    served: Mapping[Lane, Served] | None = None,
    now_ms: int = 0,
    whole_queue: bool = True,
) -> Pass:
    """A pass over these jobs, as the market does it."""
    lines, broken = Lines(queue), list[tuple[str, Exception]]()
    turns = Turns(lines.all(), held or {}, served or {}, now_ms)
    placements = run_pass(turns, index, now_ms, broken, whole_queue=whole_queue)
    assert not broken
    after = dict(served or {})
    for placement in placements:
        key, waiter = lines.place(placement.job_id)
        after[key.lane] = after_serving(after.get(key.lane), waiter, now_ms)
        lines.remove(placement.job_id)
    left = [waiter.id for _, waiter in Turns(lines.all(), held or {}, served or {}, now_ms)]
    return Pass(placements=placements, waiting=left, served=after)
