"""The market kept ready, so that the best host for a job is found without looking at all of them.

It holds nothing that the rooms it was built from do not say: a caller may keep one, tell it what changes, and
build it anew whenever in doubt. Every limit is decided by the one table in `limits`, here as everywhere.
"""

from collections.abc import Iterable, Iterator

from coordinator.domain.host import Gpu, HostRoom
from coordinator.domain.job import Policy
from coordinator.domain.limits import choose, rows_asked
from coordinator.domain.order import Mask, Order
from coordinator.domain.policy import PREFERENCES, score_of
from coordinator.domain.row import Limit, Row
from coordinator.domain.shelf import Ask, Machine, Moment, Moved, Share, Shelf

# Who has as many free as are asked for has as many: COUNT need not be looked at beside BUSY.
_IMPLIED = frozenset({Limit.AWAY, Limit.COUNT})


class Index:
    """Not to be shared between threads."""

    def __init__(self, rooms: Iterable[HostRoom] = (), now_ms: int = 0) -> None:
        self._machines: dict[str, Machine] = {}
        # Who says to have a GPU: one host, unless somebody lies or a GPU was moved.
        self._claims: dict[str, tuple[str, ...]] = {}
        self._claimed_twice: set[str] = set()
        # Made when first asked for.
        self._orders: dict[Policy, Order] = {}
        # Hosts kept free, and for which job.
        self._aside: dict[str, str] = {}
        self._moment = Moment(now_ms)
        self.online_count = 0
        for room in rooms:
            self.put(room)

    @property
    def now_ms(self) -> int:
        """On the wall clock: what the sellers' hours are held against. Only ever as true as it is kept."""
        return self._moment.ms

    @now_ms.setter
    def now_ms(self, now_ms: int) -> None:
        self._moment.ms = now_ms

    # What happens to hosts

    def put(self, room: HostRoom) -> None:
        """The host as it is now, new or known."""
        machine = self._machines.get(room.host.id)
        if machine is not None and machine.sells_as(room.host):
            self.rate(room.host.id, room.host.reliability_ppm)
            before = [shelf.count_offered for shelf in machine.shelves]
            self.online_count -= machine.online
            machine.update(room)
            self.online_count += machine.online
            for order in self._orders.values():
                for shelf, count_before in zip(machine.shelves, before, strict=True):
                    order.offer(shelf, count_before, shelf.count_offered)
                    order.show(shelf)
            return
        machine = Machine(room, self._moment)
        for shelf in machine.shelves:
            # Here, where it is known whose fault it is, if that fails.
            for policy in PREFERENCES:
                score_of(policy, shelf)
        self.remove(room.host.id)
        machine.kept_free = machine.host_id in self._aside
        self._machines[machine.host_id] = machine
        self.online_count += machine.online
        for gpu in room.host.facts.gpus:
            self._claim(gpu.uuid, (*self._claims.get(gpu.uuid, ()), machine.host_id))
        for shelf in machine.shelves:
            for order in self._orders.values():
                order.insert(shelf)

    def rate(self, host_id: str, reliability_ppm: int) -> None:
        """The host is as reliable as that now. It happens with every job that ends."""
        machine = self._machines.get(host_id)
        if machine is None or machine.reliability_ppm == reliability_ppm:
            return
        machine.rate(reliability_ppm)
        for shelf in machine.shelves:
            for order in self._orders.values():
                order.rate(shelf)

    def remove(self, host_id: str) -> None:
        machine = self._machines.pop(host_id, None)
        if machine is None:
            return
        self.online_count -= machine.online
        for gpu in machine.host.facts.gpus:
            self._claim(gpu.uuid, tuple(claim for claim in self._claims[gpu.uuid] if claim != host_id))
        for shelf in machine.shelves:
            for order in self._orders.values():
                order.remove(shelf)

    def take(self, share: Share) -> None:
        """A job has got it. A host that has gone meanwhile needs no telling."""
        for machine, part in self._concerned(share):
            self._offer(machine, machine.take(part))

    def give(self, shelf: Shelf, ask: Ask) -> tuple[Gpu, ...]:
        """The GPUs that a job gets of a shelf that it fits; they are taken."""
        gpus = choose(ask, shelf)
        if self._claimed_twice:
            self.take(Share(shelf.host_id, gpus, ask.memory_bytes, ask.cpu_milli))
            return gpus
        machine, before = shelf.machine, len(shelf.free)
        machine.memory_bytes_free -= ask.memory_bytes
        machine.cpu_milli_free -= ask.cpu_milli
        if shelf.alike:
            shelf.free = shelf.free[ask.gpu_count :]
        else:
            shelf.free = tuple([gpu for gpu in shelf.free if gpu not in gpus])
        for order in self._orders.values():
            order.offer(shelf, before, before - ask.gpu_count)
        return gpus

    def release(self, share: Share) -> None:
        """A job has left it. What the host no longer has is not given back."""
        for machine, part in self._concerned(share):
            self._offer(machine, machine.give_back(part))

    def _offer(self, machine: Machine, moved: Iterable[Moved]) -> None:
        if machine.online and not machine.kept_free:
            for shelf, before, after in moved:
                for order in self._orders.values():
                    order.offer(shelf, before, after)

    def _concerned(self, share: Share) -> list[tuple[Machine, Share]]:
        """The host, and any other that claims a GPU of the share: it must not sell it either."""
        machine = self._machines.get(share.host_id)
        concerned = [] if machine is None else [(machine, share)]
        if self._claimed_twice and any(gpu.uuid in self._claimed_twice for gpu in share.gpus):
            others = {claim for gpu in share.gpus for claim in self._claims.get(gpu.uuid, ())}
            others.discard(share.host_id)
            gpus_only = share._replace(memory_bytes=0, cpu_milli=0)
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

    def keep_free(self, host_id: str, job_id: str) -> None:
        """Nobody gets the host until `lift`; what is given back to it stays on it."""
        self._aside[host_id] = job_id
        self._set_kept_free(host_id, kept_free=True)

    def lift_all(self) -> None:
        """What was kept free is anybody's again."""
        for host_id in self._aside:
            self._set_kept_free(host_id, kept_free=False)
        self._aside.clear()

    @property
    def kept_free_count(self) -> int:
        return len(self._aside)

    def _set_kept_free(self, host_id: str, *, kept_free: bool) -> None:
        machine = self._machines.get(host_id)
        if machine is not None:
            before = [shelf.count_offered for shelf in machine.shelves]
            machine.kept_free = kept_free
            for order in self._orders.values():
                for shelf, count_before in zip(machine.shelves, before, strict=True):
                    order.offer(shelf, count_before, shelf.count_offered)

    # What is to be known of it

    def __len__(self) -> int:
        return len(self._machines)

    def machines(self) -> Iterable[Machine]:
        return self._machines.values()

    def order(self, policy: Policy) -> Order:
        order = self._orders.get(policy)
        if order is None:
            shelves = (shelf for machine in self._machines.values() for shelf in machine.shelves)
            order = self._orders[policy] = Order(policy, shelves)
        return order

    def best(self, ask: Ask, policy: Policy) -> Shelf | None:
        """The first, in the policy's order, of all shelves that the ask fits."""
        order = self.order(policy)
        checks: list[Row] = []
        mask = order.meeting(rows_asked(ask, but=_IMPLIED), ask, order.free(ask.gpu_count), checks)
        while mask:
            shelf = order.first(mask, ask.gpu_count)
            for row in checks:
                if not row.met(ask, shelf):
                    mask = order.without(mask, shelf)
                    break
            else:
                return shelf
        return None

    def fitting(self, ask: Ask, policy: Policy) -> Iterator[Shelf]:
        """All that the ask fits now, in the policy's order."""
        order = self.order(policy)
        mask = order.free(ask.gpu_count)
        for row in rows_asked(ask, but=_IMPLIED):
            mask = only_meeting(order, row, ask, mask)
        return order.members(mask)

    def emptiest(self, ask: Ask, policy: Policy) -> Shelf | None:
        """Of the shelves that it would fit if nobody used them: where the most is free already."""
        order = self.order(policy)
        mask = order.online
        for row in rows_asked(ask, but=frozenset({Limit.AWAY, Limit.BUSY})):
            mask = only_meeting(order, row, ask, mask)
        for host_id in self._aside.keys() & self._machines.keys():
            for shelf in self._machines[host_id].shelves:
                mask = order.without(mask, shelf)
        for count in range(order.free_most, 0, -1):
            free = mask & order.free(count)
            if free:
                return next(order.members(free))
        return next(order.members(mask), None)


def only_meeting(order: Order, row: Row, ask: Ask, mask: Mask) -> Mask:
    """Those of the set that meet the limit, exactly."""
    checks: list[Row] = []
    mask = order.meeting((row,), ask, mask, checks)
    if checks:
        plainly = row.limit is Limit.BUSY and not (ask.memory_bytes or ask.cpu_milli)
        counted = plainly or row.limit is Limit.COUNT
        for shelf in order.members(mask & order.mixed() if counted else order.concerned(row, mask)):
            if not row.met(ask, shelf):
                mask = order.without(mask, shelf)
    return mask
