"""All shelves in the order of one policy, and for every limit those that meet it, as bits of a number.

Which shelves meet what is asked is then an AND of numbers, and the best of them is the lowest bit: a look at
ten thousand shelves takes some microseconds, whether one is found or not. What is free changes a few bits;
a shelf that comes or goes shifts those above it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator

from coordinator.domain.job import Policy
from coordinator.domain.policy import score_of
from coordinator.domain.row import Row
from coordinator.domain.shelf import Ask, Shelf

# A set of shelves: bit n stands for the n-th in the order.
Mask = int
# More sets than this of one field are not kept: they would cost more to keep true than to make anew.
_SETS_MAX = 500

_RELIABILITY = Ask._fields.index("reliability_ppm")

# By value: the set, and what it is a set of.
_Sets = dict[object, tuple[Mask, Callable[[Shelf], bool]]]
# What does not change of a shelf's place in the order. How many are free comes after the score.
_Key = tuple[int, int, str, str]


class Order:
    def __init__(self, policy: Policy, shelves: Iterable[Shelf]) -> None:
        self._policy = policy
        keyed = sorted((self._key(shelf), shelf) for shelf in shelves)
        self._keys = [key for key, _ in keyed]
        self.shelves = [shelf for _, shelf in keyed]
        self._scores = [key[0] for key in self._keys]
        self._place = {shelf: place for place, shelf in enumerate(self.shelves)}
        # By field and value of what is asked.
        self._sets: list[_Sets] = [{} for _ in Ask._fields]
        self._kinds: _Sets = {}
        # The n-th: at least n GPUs are free and on offer. It changes with every job, so it is kept as bytes,
        # and as a number only when one is asked for.
        self._offers = [bytearray() for _ in range(1 + max((s.count for s in self.shelves), default=0))]
        self._free: list[Mask | None] = [None for _ in self._offers]
        for n in range(len(self._offers)):
            self._set_offers(n, self._mask_of(lambda shelf, n=n: shelf.count_offered >= n))  # type: ignore[misc]
        self.online = self._mask_of(lambda shelf: shelf.machine.online)

    # Shelves that come and go

    def insert(self, shelf: Shelf) -> None:
        key = self._key(shelf)
        place = bisect_left(self._keys, key)
        self._keys.insert(place, key)
        self.shelves.insert(place, shelf)
        self._scores.insert(place, key[0])
        self._renumber(place)
        low = (1 << place) - 1
        self._each(lambda mask: (mask & low) | (mask >> place << (place + 1)))
        for sets in (*self._sets, self._kinds):
            for value, (mask, holds) in sets.items():
                sets[value] = mask | (holds(shelf) << place), holds
        self.offer(shelf, 0, shelf.count_offered)
        self.show(shelf)

    def remove(self, shelf: Shelf) -> None:
        place = self._place.pop(shelf)
        del self._keys[place], self.shelves[place], self._scores[place]
        self._renumber(place)
        low = (1 << place) - 1
        self._each(lambda mask: (mask & low) | (mask >> (place + 1) << place))

    def offer(self, shelf: Shelf, count_before: int, count: int) -> None:
        """So many of its GPUs were on offer, and so many are now."""
        place = self._place[shelf]
        byte, bit = place >> 3, 1 << (place & 7)
        while len(self._offers) <= count:
            self._offers.append(bytearray(len(self._offers[0])))
            self._free.append(0)
        low, high = (count, count_before) if count < count_before else (count_before, count)
        for n in range(low + 1, high + 1):
            self._offers[n][byte] ^= bit
            self._free[n] = None

    def show(self, shelf: Shelf) -> None:
        bit = 1 << self._place[shelf]
        self.online = self.online | bit if shelf.machine.online else self.online & ~bit

    def rate(self, shelf: Shelf) -> None:
        """Its host's reliability is another: mostly that moves it nowhere, and changes a bit or none."""
        place = self._place[shelf]
        if self._key(shelf) != self._keys[place]:
            self.remove(shelf)
            self.insert(shelf)
            return
        bit = 1 << place
        for value, (mask, holds) in self._sets[_RELIABILITY].items():
            self._sets[_RELIABILITY][value] = (mask | bit if holds(shelf) else mask & ~bit), holds

    # Sets

    def free(self, count: int) -> Mask:
        """Those with at least so many GPUs free and on offer."""
        if count >= len(self._free):
            return 0
        mask = self._free[count]
        if mask is None:
            mask = self._free[count] = int.from_bytes(self._offers[count], "little")
        return mask

    @property
    def free_most(self) -> int:
        return len(self._free) - 1

    def meeting(self, rows: Iterable[Row], ask: Ask, mask: Mask, checks: list[Row]) -> Mask:
        """Those of the set that meet the limits, and perhaps some more: such rows are added to `checks`."""
        sets = self._sets
        for row in rows:
            place = row.place
            if place is None:
                if self.concerned(row, mask):
                    checks.append(row)
                continue
            asked: object = ask[place]
            value = asked
            if row.loosen is not None:
                value = row.loosen(asked)
                if value != asked:
                    checks.append(row)
            elif row.roughly is not None:
                checks.append(row)
            known = sets[place].get(value)
            mask &= self._make(row, ask, value) if known is None else known[0]
            if not mask:
                break
        return mask

    def _make(self, row: Row, ask: Ask, value: object) -> Mask:
        assert row.place is not None
        looser, met = row.with_value(ask, value), row.roughly or row.met
        return self._keep(self._sets[row.place], value, lambda shelf: met(looser, shelf))

    def concerned(self, row: Row, mask: Mask) -> Mask:
        """Those of the set whom the limit can shut out at all."""
        return mask if row.concerns is None else mask & self._of_kind(row.limit.name, row.concerns)

    def mixed(self) -> Mask:
        """Whose GPUs are not all alike."""
        return self._of_kind("mixed", lambda shelf: not shelf.alike)

    def host_count(self, mask: Mask) -> int:
        """How many hosts the shelves are of."""
        several = mask & self._of_kind("several", lambda shelf: len(shelf.machine.shelves) > 1)
        return (mask & ~several).bit_count() + len({shelf.host_id for shelf in self.members(several)})

    def _of_kind(self, name: str, holds: Callable[[Shelf], bool]) -> Mask:
        known = self._kinds.get(name)
        return self._keep(self._kinds, name, holds) if known is None else known[0]

    def _keep(self, sets: _Sets, key: object, holds: Callable[[Shelf], bool]) -> Mask:
        if len(sets) >= _SETS_MAX:
            sets.clear()
        mask = self._mask_of(holds)
        sets[key] = mask, holds
        return mask

    def members(self, mask: Mask) -> Iterator[Shelf]:
        """In the order."""
        digits = bin(mask)[:1:-1]
        place = digits.find("1")
        while place >= 0:
            yield self.shelves[place]
            place = digits.find("1", place + 1)

    def without(self, mask: Mask, shelf: Shelf) -> Mask:
        return mask & ~(1 << self._place[shelf])

    def first(self, mask: Mask, count: int) -> Shelf:
        """The best of a set that is not empty, all of which have at least `count` free."""
        place = (mask & -mask).bit_length() - 1
        end = bisect_right(self._scores, self._scores[place], place)
        equals = (mask >> place) & ((1 << (end - place)) - 1)
        if equals != 1:
            # Of equal score: the fewest free, and of these the first.
            low, high, over = place >> 3, (end + 7) >> 3, place & 7
            for offers in self._offers[count + 1 :]:
                fewest = equals & ~(int.from_bytes(offers[low:high], "little") >> over)
                if fewest:
                    equals = fewest
                    break
        return self.shelves[place + (equals & -equals).bit_length() - 1]

    def _mask_of(self, holds: Callable[[Shelf], bool]) -> Mask:
        digits = "".join(["1" if holds(shelf) else "0" for shelf in reversed(self.shelves)])
        return int(digits, 2) if digits else 0

    def _each(self, shift: Callable[[Mask], Mask]) -> None:
        for n in range(len(self._offers)):
            self._set_offers(n, shift(self.free(n)))
        self.online = shift(self.online)
        for sets in (*self._sets, self._kinds):
            for value, (mask, holds) in sets.items():
                sets[value] = shift(mask), holds

    def _set_offers(self, count: int, mask: Mask) -> None:
        self._free[count] = mask
        self._offers[count] = bytearray(mask.to_bytes(len(self.shelves) // 8 + 1, "little"))

    def _renumber(self, place: int) -> None:
        for later in range(place, len(self.shelves)):
            self._place[self.shelves[later]] = later

    def _key(self, shelf: Shelf) -> _Key:
        return score_of(self._policy, shelf), shelf.price, shelf.host_id, shelf.model
