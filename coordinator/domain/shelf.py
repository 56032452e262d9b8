"""The two sides that matching brings together, made ready to be compared quickly.

An `Ask` is what a job wants of a host, with every word of the order turned into what is compared. A `Shelf`
is what one host sells of one GPU model; a job gets all its GPUs from one shelf or none. Shelves of one host
share their `Machine`. What of a shelf is free changes as jobs come and go; all the rest never does.
"""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from coordinator.domain.destinations import lie_within
from coordinator.domain.host import (
    Gpu,
    Host,
    HostRoom,
    HostState,
    Isolation,
    Network,
    may_run_unisolated,
)
from coordinator.domain.hours import open_ms_left
from coordinator.domain.images import ANY_IMAGE
from coordinator.domain.job import JobSpec, Policy

# A run shorter than this is not worth starting: the budget would be spent before anything is done.
RUN_MS_WORTH_STARTING = 1_000
_SECONDS_PER_HOUR = 3_600
_NO_CAP = 2**63
# Who names a model so means it.
_SIMULATED = "simulated"

Version = tuple[int, ...]


class Ask(NamedTuple):
    """All that decides which shelves a job fits. What is empty or 0 is not asked for."""

    gpu_count: int
    model: str
    vram_bytes: int
    compute_capability: Version
    # Steps above the weakest.
    isolation: int
    has_image: bool
    # Id and name.
    account: tuple[str, str]
    hosts_failed: AbstractSet[str]
    regions: AbstractSet[str]
    driver_version: Version
    cuda_version: Version
    reliability_ppm: int
    labels: AbstractSet[tuple[str, str]]
    memory_bytes: int
    cpu_milli: int
    run_ms: int
    # The most for one GPU for one hour, by the buyer's own cap and by what the budget bears.
    price_cap: int
    price_borne: int
    # Steps above none at all, and what must be reached of it.
    network: int
    destinations: AbstractSet[str]
    image: str
    # Simulated GPUs will not do.
    real: bool


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job as matching sees it: its order, whose it is, and the hosts that failed it before."""

    spec: JobSpec
    account_id: str
    account_name: str
    budget_left_micro: int
    hosts_failed: AbstractSet[str] = frozenset()

    @property
    def ask(self) -> Ask:
        """Worked out once; what is kept is no part of the value."""
        kept: Ask | None = self.__dict__.get("_ask")
        if kept is None:
            kept = self.__dict__["_ask"] = self._make_ask()
        return kept

    def _make_ask(self) -> Ask:
        spec, host, gpus = self.spec, self.spec.host, self.spec.gpus
        return Ask(
            gpus.count,
            plain(gpus.model) if gpus.model else "",
            gpus.vram_bytes_min,
            version(gpus.compute_capability_min) if gpus.compute_capability_min else (),
            spec.isolation_min - Isolation.PROCESS,
            bool(spec.image),
            (self.account_id, self.account_name),
            frozenset(self.hosts_failed),
            frozenset(host.regions),
            version(host.driver_version_min) if host.driver_version_min else (),
            version(host.cuda_version_min) if host.cuda_version_min else (),
            host.reliability_ppm_min,
            frozenset(host.labels.items()) if host.labels else frozenset(),
            spec.memory_bytes,
            spec.cpu_milli,
            spec.run_ms_max,
            spec.gpu_hour_price_micro_max,
            self.budget_left_micro * _SECONDS_PER_HOUR * 1_000 // (RUN_MS_WORTH_STARTING * gpus.count),
            spec.network - Network.NONE,
            frozenset(spec.network_destinations),
            spec.image,
            bool(gpus.model) and not gpus.simulated and _SIMULATED not in plain(gpus.model),
        )


class Share(NamedTuple):
    """What a job holds of a host: its GPUs, and of the rest what it asked for."""

    host_id: str
    gpus: Sequence[Gpu]
    memory_bytes: int = 0
    cpu_milli: int = 0


class Moment:
    """Now, on the wall clock; shared by all that is looked at together."""

    __slots__ = ("ms",)

    def __init__(self, ms: int = 0) -> None:
        self.ms = ms


# A shelf, and how many GPUs of it were free before and are now.
Moved = tuple["Shelf", int, int]


class Machine:
    """What the shelves of one host have in common. Its `update` comes after what never changes."""

    __slots__ = (
        "cpu_milli",
        "cpu_milli_free",
        "cuda_version",
        "driver_version",
        "ends_ms",
        "host",
        "host_id",
        "hours",
        "images",
        "isolation",
        "kept_free",
        "labels",
        "memory_bytes",
        "memory_bytes_free",
        "moment",
        "network",
        "online",
        "region",
        "reliability_ppm",
        "run_ms_max",
        "shelves",
    )

    def __init__(self, room: HostRoom, moment: Moment) -> None:
        host, facts, terms = room.host, room.host.facts, room.host.terms
        self.host_id = host.id
        self.moment = moment
        self.hours, self.ends_ms = terms.hours, 0
        # Whatever is free is not on offer: it is for a job that has waited long.
        self.kept_free = False
        self.isolation = facts.isolation - Isolation.PROCESS
        # Without isolation no image is run.
        self.images = terms.images if self.isolation and terms.images != ANY_IMAGE else None
        self.region = facts.region
        self.driver_version = version(facts.driver_version)
        self.cuda_version = version(facts.cuda_version)
        self.reliability_ppm = host.reliability_ppm
        self.labels = frozenset(facts.labels.items())
        self.memory_bytes = facts.memory_bytes
        self.cpu_milli = facts.cpu_count * 1_000
        self.run_ms_max = terms.run_ms_max or _NO_CAP
        # Without isolation nobody can hold a job back from it.
        self.network = (terms.network_max if self.isolation else Network.INTERNET) - Network.NONE
        models = sorted({gpu.model for gpu in facts.gpus_fit} & terms.prices.keys())
        self.shelves = tuple(Shelf(self, model, host) for model in models)
        self.update(room)

    def update(self, room: HostRoom) -> None:
        """The same host with the same things for sale, in another state or with other things free."""
        self.host = room.host
        self.online = room.host.state is HostState.ONLINE
        self.memory_bytes_free = self.memory_bytes - room.memory_bytes_taken
        self.cpu_milli_free = self.cpu_milli - room.cpu_milli_taken
        free = {gpu.uuid for gpu in room.free}
        for shelf in self.shelves:
            shelf.free = tuple(gpu for gpu in shelf.gpus if gpu.uuid in free)

    def sells_as(self, host: Host) -> bool:
        """It sells the same as before, on the same terms."""
        known = self.host
        return host.facts == known.facts and host.terms == known.terms and host.account_id == known.account_id

    def rate(self, reliability_ppm: int) -> None:
        self.reliability_ppm = reliability_ppm
        self.host = replace(self.host, reliability_ppm=reliability_ppm)
        for shelf in self.shelves:
            shelf.scores.clear()

    def trusts(self, ask: Ask) -> bool:
        return may_run_unisolated(self.host, *ask.account)

    @property
    def open_ms_left(self) -> int:
        """How long a job may still run by the seller's hours; 0 outside them."""
        if not self.hours:
            return _NO_CAP
        now_ms = self.moment.ms
        if self.ends_ms <= now_ms:
            left_ms = open_ms_left(self.hours, now_ms)
            # Hours that never end are looked at again all the same, some day.
            self.ends_ms = now_ms + (_NO_CAP if left_ms is None else left_ms)
        return self.ends_ms - now_ms

    def lets_reach(self, ask: Ask) -> bool:
        if ask.destinations and self.network == ask.network:
            return lie_within(ask.destinations, self.host.terms.network_destinations)
        return ask.network <= self.network

    def take(self, share: Share) -> list[Moved]:
        taken = {gpu.uuid for gpu in share.gpus}
        self.memory_bytes_free -= share.memory_bytes
        self.cpu_milli_free -= share.cpu_milli
        return [
            shelf.now_free(left)
            for shelf in self.shelves
            if len(left := [gpu for gpu in shelf.free if gpu.uuid not in taken]) < len(shelf.free)
        ]

    def give_back(self, share: Share) -> list[Moved]:
        back = {gpu.uuid for gpu in share.gpus}
        self.memory_bytes_free += share.memory_bytes
        self.cpu_milli_free += share.cpu_milli
        return [
            shelf.now_free([gpu for gpu in shelf.gpus if gpu.uuid in back or gpu in shelf.free])
            for shelf in self.shelves
            if any(gpu.uuid in back for gpu in shelf.gpus)
        ]

    def room(self) -> HostRoom:
        """What is free now. GPUs that are not for sale are not told."""
        return HostRoom(
            host=self.host,
            free=tuple(gpu for shelf in self.shelves for gpu in shelf.free),
            memory_bytes_taken=self.memory_bytes - self.memory_bytes_free,
            cpu_milli_taken=self.cpu_milli - self.cpu_milli_free,
        )


class Shelf:
    """The GPUs of one model that one host sells, least memory first."""

    __slots__ = (
        "alike",
        "compute_capability",
        "count",
        "free",
        "gpus",
        "host_id",
        "machine",
        "model",
        "model_plain",
        "price",
        "scores",
        "simulated",
        "vram_bytes",
    )

    def __init__(self, machine: Machine, model: str, host: Host) -> None:
        gpus = sorted((g for g in host.facts.gpus_fit if g.model == model), key=_least_first)
        self.machine = machine
        self.host_id = machine.host_id
        self.model = model
        self.model_plain = plain(model)
        self.price = host.terms.prices[model]
        self.gpus = tuple(gpus)
        self.count = len(gpus)
        self.simulated = any(gpu.simulated for gpu in gpus)
        self.free: tuple[Gpu, ...] = ()
        # Of the best of them.
        self.vram_bytes = gpus[-1].vram_bytes
        self.compute_capability = max(version(gpu.compute_capability) for gpu in gpus)
        # By policy, kept by who computes them: they never change.
        self.scores: dict[Policy, int] = {}
        self.alike = len({(gpu.vram_bytes, gpu.compute_capability) for gpu in gpus}) == 1

    def now_free(self, gpus: Sequence[Gpu]) -> Moved:
        moved = self, len(self.free), len(gpus)
        self.free = tuple(gpus)
        return moved

    @property
    def vram_bytes_least(self) -> int:
        return self.gpus[0].vram_bytes

    @property
    def count_offered(self) -> int:
        return len(self.free) if self.machine.online and not self.machine.kept_free else 0

    def suiting(self, ask: Ask, gpus: Sequence[Gpu]) -> Sequence[Gpu]:
        """Those of the given GPUs of this shelf that are good enough."""
        if self.alike:
            good = ask.vram_bytes <= self.vram_bytes and ask.compute_capability <= self.compute_capability
            return gpus if good else ()
        return [
            gpu
            for gpu in gpus
            if gpu.vram_bytes >= ask.vram_bytes and version(gpu.compute_capability) >= ask.compute_capability
        ]


def model_matches(model: str, wanted: str) -> bool:
    """Part of the name, without regard to case, blanks, dashes: "rtx4090" finds "GeForce RTX 4090"."""
    return plain(wanted) in plain(model)


@lru_cache(maxsize=4_096)
def plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


@lru_cache(maxsize=4_096)
def version(text: str) -> Version:
    """The numbers of "550.54.15", which compare as versions do; "12.0" is "12", and "" is below all."""
    numbers = [int(part) for part in re.findall(r"[0-9]{1,9}", text)]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _least_first(gpu: Gpu) -> tuple[int, str]:
    return gpu.vram_bytes, gpu.uuid
