"""What GPUs are offered for, over the whole market."""

from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.domain.host import HostRoom, HostState


@dataclass(frozen=True, kw_only=True)
class ModelPrice:
    gpu_model: str
    host_count: int
    gpu_count: int
    gpu_count_free: int
    price_micro_min: int
    price_micro_median: int
    price_micro_max: int
    simulated: bool


def model_prices(rooms: Iterable[HostRoom]) -> list[ModelPrice]:
    """By model; only of hosts that would take a job now, if they have room."""
    hosts: dict[str, int] = {}
    prices: dict[str, list[int]] = {}
    free: dict[str, int] = {}
    simulated: set[str] = set()
    for room in rooms:
        if room.host.state is not HostState.ONLINE:
            continue
        of_host = room.host.terms.prices
        gpus = [gpu for gpu in room.host.facts.gpus if gpu.model in of_host]
        for model in {gpu.model for gpu in gpus}:
            hosts[model] = hosts.get(model, 0) + 1
        for gpu in gpus:
            prices.setdefault(gpu.model, []).append(of_host[gpu.model])
            if gpu.simulated:
                simulated.add(gpu.model)
        for gpu in room.free:
            free[gpu.model] = free.get(gpu.model, 0) + 1
    return [
        ModelPrice(
            gpu_model=model,
            host_count=hosts[model],
            gpu_count=len(found),
            gpu_count_free=free.get(model, 0),
            price_micro_min=found[0],
            price_micro_median=found[(len(found) - 1) // 2],
            price_micro_max=found[-1],
            simulated=model in simulated,
        )
        for model, found in sorted((model, sorted(each)) for model, each in prices.items())
    ]
