"""The market kept sorted, so that the best host for a job is found without looking at all of them.

It holds nothing that the rooms it was built from do not say: a caller may keep one, tell it what changes, and
build it anew whenever in doubt. Every limit is still decided by the one table in `limits`; the index only
leaves out shelves that can't be the answer, and says when no better one can follow.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import replace

from coordinator.domain.host import HostRoom
from coordinator.domain.job import Policy
from coordinator.domain.limits import Limit, first_missed, rows_asked
from coordinator.domain.policy import PREFERENCES, order_key, score_of
from coordinator.domain.shelf import Ask, Machine, Share, Shelf, plain

# A shelf in its order: score, GPUs free, price, host, model.
Entry = tuple[int, int, int, str, str, Shelf]
# The shelves of one model (and region), apart by the bit length of how many GPUs are free, each part sorted:
# a job need not look at those that can't have enough.
Rack = list[list[Entry]]

_ANY_REGION = None
# Up to 64 GPUs on a host, and some to spare.
_PARTS = 16
# Held by how racks are made and chosen, so that it need not be looked at again.
_GUARANTEED = frozenset({Limit.AWAY, Limit.MODEL, Limit.REGION, Limit.COUNT})
_GUARANTEED_FREE = _GUARANTEED | {Limit.BUSY}
# More different asks than this are not remembered.
_REMEMBERED_MAX = 50_000


class Index:
    """Not to be shared between threads."""

    def __init__(self, rooms: Iterable[HostRoom] = ()) -> None:
        self._machines: dict[str, Machine] = {}
        # Shelves of hosts that are online, by model and host; the largest GPU ever seen of each model.
        self._shelves: dict[str, dict[str, Shelf]] = {}
        self._vram_bytes: dict[str, int] = {}
        self._models_of: dict[str, tuple[str, ...]] = {}
        # Who says to have a GPU: one host, unless somebody lies or a GPU was moved.
        self._claims: dict[str, tuple[str, ...]] = {}
        self._claimed_twice: set[str] = set()
        # Made when first asked for: a market where nobody asks by region keeps none by region.
        self._racks: dict[tuple[Policy, str, str | None], Rack] = {}
        self._racks_of_model: dict[str, list[tuple[Policy, str | None, Rack]]] = {}
        # Asks that no shelf fits; forgotten as soon as one could.
        self._hopeless: set[Ask] = set()
        # Asks that no shelf would fit if nobody used it; forgotten when a host changes.
        self._never: set[Ask] = set()
        # Hosts kept free, and for which job.
        self._aside: dict[str, str] = {}
        self.away_count = 0
        for room in rooms:
            self.put(room)

    # What happens to hosts

    def put(self, room: HostRoom) -> None:
        """The host as it is now, new or known."""
        self.remove(room.host.id)
        machine = Machine(room)
        self._machines[machine.host_id] = machine
        for gpu in room.host.facts.gpus:
            self._claim(gpu.uuid, (*self._claims.get(gpu.uuid, ()), machine.host_id))
        self._never.clear()
        if not machine.online:
            self.away_count += 1
            return
        for shelf in machine.shelves:
            if shelf.model not in self._shelves:
                self._shelves[shelf.model] = {}
                self._models_of.clear()
            self._shelves[shelf.model][shelf.host_id] = shelf
            self._vram_bytes[shelf.model] = max(shelf.vram_bytes, self._vram_bytes.get(shelf.model, 0))
        self._rack_in(machine)
        self._new_hope(machine)

    def remove(self, host_id: str) -> None:
        machine = self._machines.pop(host_id, None)
        if machine is None:
            return
        for gpu in machine.host.facts.gpus:
            self._claim(gpu.uuid, tuple(claim for claim in self._claims[gpu.uuid] if claim != host_id))
        if not machine.online:
            self.away_count -= 1
            return
        self._rack_out(machine)
        for shelf in machine.shelves:
            del self._shelves[shelf.model][host_id]

    def take(self, share: Share) -> None:
        """A job has got it. A host that has gone meanwhile needs no telling."""
        for machine, part in self._concerned(share):
            self._rack_out(machine)
            machine.take(part)
            self._rack_in(machine)

    def release(self, share: Share) -> None:
        """A job has left it. What the host no longer has is not given back."""
        for machine, part in self._concerned(share):
            self._rack_out(machine)
            machine.give_back(part)
            self._rack_in(machine)
            self._new_hope(machine)

    def _concerned(self, share: Share) -> list[tuple[Machine, Share]]:
        """The host, and any other that claims a GPU of the share: it must not sell it either."""
        machine = self._machines.get(share.host_id)
        concerned = [] if machine is None else [(machine, share)]
        if not self._claimed_twice.isdisjoint(gpu.uuid for gpu in share.gpus):
            others = {claim for gpu in share.gpus for claim in self._claims.get(gpu.uuid, ())}
            others.discard(share.host_id)
            gpus_only = replace(share, memory_bytes=0, cpu_milli=0)
            concerned += [(self._machines[other], gpus_only) for other in sorted(others)]
        return concerned

    def _claim(self, uuid: str, claims: tuple[str, ...]) -> None:
        if claims:
            self._claims[uuid] = claims
        else:
            del self._claims[uuid]
        if len(claims) > 1:
            self._claimed_twice.add(uuid)
        else:
            self._claimed_twice.discard(uuid)

    # What is kept free for a job that has waited long

    def set_aside(self, host_id: str, job_id: str) -> None:
        """Nobody gets the host until `lift`; what is given back to it stays on it."""
        self._rack_out(self._machines[host_id])
        self._aside[host_id] = job_id

    def lift(self, job_id: str) -> None:
        """The host that was kept free for the job is anybody's again."""
        for host_id in [host_id for host_id, kept_for in self._aside.items() if kept_for == job_id]:
            del self._aside[host_id]
            machine = self._machines.get(host_id)
            if machine is not None:
                self._rack_in(machine)
                self._new_hope(machine)

    def lift_all(self) -> None:
        for job_id in set(self._aside.values()):
            self.lift(job_id)

    @property
    def aside_count(self) -> int:
        return len(self._aside)

    def is_aside(self, host_id: str) -> bool:
        return host_id in self._aside

    # What is to be known of it

    def __len__(self) -> int:
        return len(self._machines)

    def machine(self, host_id: str) -> Machine | None:
        return self._machines.get(host_id)

    def machines(self) -> Iterable[Machine]:
        return self._machines.values()

    def shelves_of(self, models: Iterable[str]) -> Iterator[Shelf]:
        """Of hosts that are online."""
        for model in models:
            yield from self._shelves[model].values()

    def models_matching(self, wanted: str) -> tuple[str, ...]:
        found = self._models_of.get(wanted)
        if found is None:
            if len(self._models_of) >= _REMEMBERED_MAX:
                self._models_of.clear()
            found = tuple(sorted(model for model in self._shelves if wanted in plain(model)))
            self._models_of[wanted] = found
        return found

    def best(self, ask: Ask, policy: Policy) -> Shelf | None:
        """The first, in the policy's order, of all shelves that the ask fits."""
        if ask in self._hopeless:
            return None
        entry = self._first(ask, policy)
        if entry is not None:
            return entry[-1]
        if len(self._hopeless) < _REMEMBERED_MAX:
            self._hopeless.add(ask)
        return None

    def emptiest(self, ask: Ask, policy: Policy) -> Shelf | None:
        """Of the shelves that it would fit if nobody used them: where the least is still to come free."""
        if ask in self._never:
            return None
        rows = rows_asked(ask, but=frozenset({Limit.AWAY, Limit.MODEL, Limit.BUSY}))
        tests = [row.met for row in rows]
        shelves = [
            shelf
            for shelf in self.shelves_of(self.models_matching(ask.model))
            if all(met(ask, shelf) for met in tests)
        ]
        if not shelves:
            self._never.add(ask)
        shelves = [shelf for shelf in shelves if shelf.host_id not in self._aside]
        key = order_key(policy)
        return min(shelves, key=lambda s: (-len(s.suiting(ask, s.free)), *key(s)), default=None)

    def _first(self, ask: Ask, policy: Policy) -> Entry | None:
        count = ask.gpu_count
        ceiling = PREFERENCES[policy].score_max(min(ask.price_cap, ask.price_borne))
        plainly_free = not (ask.vram_bytes or ask.compute_capability or ask.memory_bytes or ask.cpu_milli)
        but = _GUARANTEED_FREE if plainly_free else _GUARANTEED
        tests = [row.met for row in rows_asked(ask, but)]
        found: Entry | None = None
        for rack in self._racks_for(ask, policy):
            for part in rack[count.bit_length() :]:
                for entry in part:
                    if entry[0] > ceiling or (found is not None and entry > found):
                        break  # what follows in this part is no better
                    if entry[1] < count:
                        continue
                    shelf = entry[5]
                    for met in tests:
                        if not met(ask, shelf):
                            break
                    else:
                        found = entry
                        break
        return found

    def _racks_for(self, ask: Ask, policy: Policy) -> Iterator[Rack]:
        regions: Iterable[str | None] = ask.regions or (_ANY_REGION,)
        for model in self.models_matching(ask.model):
            if self._vram_bytes[model] >= ask.vram_bytes:
                for region in regions:
                    yield self._racks.get((policy, model, region)) or self._make_rack(policy, model, region)

    # Racks

    def _make_rack(self, policy: Policy, model: str, region: str | None) -> Rack:
        rack: Rack = [[] for _ in range(_PARTS)]
        self._racks[policy, model, region] = rack
        self._racks_of_model.setdefault(model, []).append((policy, region, rack))
        for shelf in self._shelves[model].values():
            if region in {_ANY_REGION, shelf.machine.region} and not self.is_aside(shelf.host_id):
                rack[len(shelf.free).bit_length()].append(_entry(policy, shelf))
        for part in rack:
            part.sort()
        return rack

    def _rack_in(self, machine: Machine) -> None:
        if not machine.online or machine.host_id in self._aside:
            return
        for shelf in machine.shelves:
            part = len(shelf.free).bit_length()
            for policy, region, rack in self._racks_of_model.get(shelf.model, ()):
                if region is _ANY_REGION or region == machine.region:
                    insort(rack[part], _entry(policy, shelf))

    def _rack_out(self, machine: Machine) -> None:
        if not machine.online or machine.host_id in self._aside:
            return
        for shelf in machine.shelves:
            part = len(shelf.free).bit_length()
            for policy, region, rack in self._racks_of_model.get(shelf.model, ()):
                if region is _ANY_REGION or region == machine.region:
                    entries = rack[part]
                    place = bisect_left(entries, _entry(policy, shelf))
                    assert entries[place][5] is shelf
                    del entries[place]

    def _new_hope(self, machine: Machine) -> None:
        """Asks that this host has become good for are no longer hopeless."""
        if not self._hopeless:
            return
        self._hopeless = {ask for ask in self._hopeless if not any(_suits(ask, s) for s in machine.shelves)}


def _suits(ask: Ask, shelf: Shelf) -> bool:
    if ask.gpu_count > len(shelf.free) or ask.model not in shelf.model_plain:
        return False
    return first_missed(rows_asked(ask), ask, shelf) is None


def _entry(policy: Policy, shelf: Shelf) -> Entry:
    return (score_of(policy, shelf), len(shelf.free), shelf.price, shelf.host_id, shelf.model, shelf)
