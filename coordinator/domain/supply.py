"""What the market has to sell, counted."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coordinator.domain.host import HostState
from coordinator.domain.shelf import Machine


@dataclass(frozen=True, kw_only=True)
class Supply:
    """GPUs that have a price: those that a job could get now, and those whose host takes none at the moment.
    What is sold is in neither."""

    hosts: Mapping[HostState, int]
    gpus_free: int
    gpus_away: int


def supply_of(machines: Iterable[Machine]) -> Supply:
    hosts, free, away = Counter[HostState](), 0, 0
    for machine in machines:
        hosts[machine.host.state] += 1
        count = sum(len(shelf.free) for shelf in machine.shelves)
        if machine.online:
            free += count
        else:
            away += count
    return Supply(hosts=hosts, gpus_free=free, gpus_away=away)
