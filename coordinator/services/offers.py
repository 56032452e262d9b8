"""What is to be had, and what a job would cost there."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from coordinator.domain.account import Account
from coordinator.domain.host import Gpu, HostRoom, Isolation, Network
from coordinator.domain.index import Index
from coordinator.domain.job import (
    BUDGET_MICRO_MAX,
    GpuRequest,
    HostRequest,
    JobSpec,
    Policy,
)
from coordinator.domain.matching import LimitCount, Request, best, explain
from coordinator.domain.pricing import hour_price_micro, run_ms_affordable
from coordinator.domain.shelf import Ask, Shelf


class OfferOrder(StrEnum):
    """In what order offers come."""

    PRICE = "price"
    RELIABILITY = "reliability"
    VRAM = "vram"
    COUNT = "count"


@dataclass(frozen=True, kw_only=True)
class Quote:
    room: HostRoom | None
    gpus: tuple[Gpu, ...]
    gpu_hour_price_micro: int
    run_ms_affordable: int
    hosts_considered: int
    limits: Sequence[LimitCount]
    cheapest_change: str = ""


@dataclass(frozen=True, kw_only=True)
class OfferFilter:
    gpus: GpuRequest
    host: HostRequest
    isolation_min: Isolation
    gpu_hour_price_micro_max: int
    order: OfferOrder
    network_min: Network = Network.NONE
    # "" and 0 for any.
    image: str = ""
    run_ms: int = 0


def offers(index: Index, buyer: Account, wanted: OfferFilter) -> Iterable[Shelf]:
    """What could take such a job of this buyer now, in the order wanted."""
    # Which is by price, then by name.
    found = index.fitting(_ask(buyer, wanted), Policy.CHEAPEST)
    key = _KEYS[wanted.order]
    return found if key is None else sorted(found, key=key)


# Among equals the cheaper, then by name; None where that is all.
_KEYS: dict[OfferOrder, Callable[[Shelf], int] | None] = {
    OfferOrder.PRICE: None,
    OfferOrder.RELIABILITY: lambda shelf: -shelf.machine.reliability_ppm,
    OfferOrder.VRAM: lambda shelf: -shelf.vram_bytes_least,
    OfferOrder.COUNT: lambda shelf: -len(shelf.free),
}


def _ask(buyer: Account, wanted: OfferFilter) -> Ask:
    spec = JobSpec(
        name="any",
        image=wanted.image,
        command=(),
        gpus=replace(wanted.gpus, count=max(1, wanted.gpus.count)),
        host=wanted.host,
        budget_micro=BUDGET_MICRO_MAX,
        isolation_min=wanted.isolation_min,
        gpu_hour_price_micro_max=wanted.gpu_hour_price_micro_max,
        run_ms_max=wanted.run_ms,
        network=wanted.network_min,
    )
    request = Request(
        spec=spec, account_id=buyer.id, account_name=buyer.name, budget_left_micro=BUDGET_MICRO_MAX
    )
    # Who names no image will have one that is taken.
    return request.ask._replace(has_image=True)


def quote(index: Index, buyer: Account, spec: JobSpec) -> Quote:
    request = Request(
        spec=spec, account_id=buyer.id, account_name=buyer.name, budget_left_micro=spec.budget_micro
    )
    choice = best(request, index)
    if choice is None:
        why = explain(request, index)
        return Quote(
            room=None,
            gpus=(),
            gpu_hour_price_micro=0,
            run_ms_affordable=0,
            hosts_considered=len(index),
            limits=why.limits,
            cheapest_change=why.change.words if why.change else "",
        )
    room, fitting = choice
    whole = hour_price_micro(fitting.gpu_hour_price_micro, len(fitting.gpus))
    return Quote(
        room=room,
        gpus=fitting.gpus,
        gpu_hour_price_micro=fitting.gpu_hour_price_micro,
        run_ms_affordable=min(run_ms_affordable(whole, spec.budget_micro), spec.run_ms_max),
        hosts_considered=len(index),
        limits=(),
    )
