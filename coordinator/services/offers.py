"""What is to be had, and what a job would cost there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from coordinator.domain.account import Account
from coordinator.domain.host import Gpu, HostRoom, Isolation
from coordinator.domain.job import (
    BUDGET_MICRO_MAX,
    GpuRequest,
    HostRequest,
    JobSpec,
)
from coordinator.domain.matching import Fit, LimitCount, Request, best, explain, fit
from coordinator.domain.pricing import hour_price_micro, run_ms_affordable
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


def offers(tx: Transaction, buyer: Account, wanted: OfferFilter) -> list[tuple[HostRoom, Fit]]:
    """Hosts that could take such a job of this buyer now."""
    spec = JobSpec(
        name="any",
        image="any",
        command=(),
        gpus=replace(wanted.gpus, count=max(1, wanted.gpus.count)),
        host=wanted.host,
        budget_micro=BUDGET_MICRO_MAX,
        isolation_min=wanted.isolation_min,
        gpu_hour_price_micro_max=wanted.gpu_hour_price_micro_max,
        run_ms_max=0,
    )
    request = Request(
        spec=spec, account_id=buyer.id, account_name=buyer.name, budget_left_micro=BUDGET_MICRO_MAX
    )
    found = [
        (room, fitting)
        for room in tx.rooms()
        for model in sorted(room.host.terms.prices)
        if isinstance(fitting := fit(request, _only(room, model)), Fit)
    ]
    return sorted(found, key=lambda offer: _ORDERS[wanted.order](*offer))


# Ties go to the cheaper, then by id, so that the order is the same each time.
_ORDERS: dict[OfferOrder, Callable[[HostRoom, Fit], tuple[int, int, str]]] = {
    OfferOrder.PRICE: lambda room, f: (f.gpu_hour_price_micro, 0, room.host.id),
    OfferOrder.RELIABILITY: lambda room, f: (
        -room.host.reliability_ppm,
        f.gpu_hour_price_micro,
        room.host.id,
    ),
    OfferOrder.VRAM: lambda room, f: (-f.gpus[0].vram_bytes, f.gpu_hour_price_micro, room.host.id),
    OfferOrder.COUNT: lambda room, f: (-len(room.free), f.gpu_hour_price_micro, room.host.id),
}


def _only(room: HostRoom, model: str) -> HostRoom:
    """The host as if it sold this model alone: each model is an offer of its own."""
    terms = room.host.terms
    only = replace(terms, prices={model: terms.prices[model]})
    return replace(room, host=replace(room.host, terms=only))


def quote(tx: Transaction, buyer: Account, spec: JobSpec) -> Quote:
    request = Request(
        spec=spec, account_id=buyer.id, account_name=buyer.name, budget_left_micro=spec.budget_micro
    )
    rooms = tx.rooms()
    choice = best(request, rooms)
    if choice is None:
        why = explain(request, rooms)
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
