"""What is to be had, and what a job would cost there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from coordinator.domain.account import Account
from coordinator.domain.host import Gpu, HostRoom, Isolation, Network
from coordinator.domain.job import (
    BUDGET_MICRO_MAX,
    GpuRequest,
    HostRequest,
    JobSpec,
)
from coordinator.domain.limits import first_missed, rows_asked
from coordinator.domain.matching import LimitCount, Request, best, explain
from coordinator.domain.pricing import hour_price_micro, run_ms_affordable
from coordinator.domain.shelf import Ask, Machine, Moment, Shelf
from coordinator.store.ports import Transaction


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


def offers(tx: Transaction, buyer: Account, wanted: OfferFilter, now_ms: int) -> list[Shelf]:
    """What could take such a job of this buyer now."""
    ask, moment = _ask(buyer, wanted), Moment(now_ms)
    rows = rows_asked(ask)
    found = [
        shelf
        for room in tx.rooms()
        for shelf in Machine(room, moment).shelves
        if first_missed(rows, ask, shelf) is None
    ]
    return sorted(found, key=_ORDERS[wanted.order])


# Ties go to the cheaper, then by name, so that the order is the same each time.
_ORDERS: dict[OfferOrder, Callable[[Shelf], tuple[int, int, str, str]]] = {
    OfferOrder.PRICE: lambda shelf: (0, shelf.price, shelf.host_id, shelf.model),
    OfferOrder.RELIABILITY: lambda shelf: (
        -shelf.machine.reliability_ppm,
        shelf.price,
        shelf.host_id,
        shelf.model,
    ),
    OfferOrder.VRAM: lambda shelf: (-shelf.vram_bytes_least, shelf.price, shelf.host_id, shelf.model),
    OfferOrder.COUNT: lambda shelf: (-len(shelf.free), shelf.price, shelf.host_id, shelf.model),
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


def quote(tx: Transaction, buyer: Account, spec: JobSpec, now_ms: int) -> Quote:
    request = Request(
        spec=spec, account_id=buyer.id, account_name=buyer.name, budget_left_micro=spec.budget_micro
    )
    rooms = tx.rooms()
    choice = best(request, rooms, now_ms)
    if choice is None:
        why = explain(request, rooms, now_ms)
        return Quote(
            room=None,
            gpus=(),
            gpu_hour_price_micro=0,
            run_ms_affordable=0,
            hosts_considered=len(rooms),
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
        hosts_considered=len(rooms),
        limits=(),
    )
