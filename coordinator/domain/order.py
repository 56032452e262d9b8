"""All shelves in the order of one policy, and for every limit those that meet it, as bits of a number.

Which shelves meet what is asked is then an AND of numbers, and the best of them is the lowest bit: a look at
ten thousand shelves takes some microseconds, whether one is found or not. What is free changes a few bits;
a shelf that comes or goes shifts those above it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator

from coordinator.domain.job import Policy
from coordinator.domain.limits import Row
from coordinator.domain.policy import score_of
from coordinator.domain.shelf import Ask, Shelf

# A set of shelves: bit n stands for the n-th in the order.
Mask = int
# More sets than this are not kept: they would cost more to keep true than to make anew.
_MASKS_MAX = 1_000
_SEVERAL = "of a host with several shelves"

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
        # By what is asked: the set, and what it is a set of.
        self._masks: dict[object, tuple[Mask, Callable[[Shelf], bool]]] = {}
        # Of the n-th: at least n GPUs are free and on offer.
        most = max((shelf.count for shelf in self.shelves), default=0)
        self._free = [
            self._mask_of(lambda shelf, n=n: shelf.count_offered >= n)  # type: ignore[misc]
            for n in range(most + 1)
        ]
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
        self._masks = {
            key: (mask | (holds(shelf) << place), holds) for key, (mask, holds) in self._masks.items()
        }
        self.offer(shelf, 0)
        self.show(shelf)

    def remove(self, shelf: Shelf) -> None:
        place = self._place.pop(shelf)
        del self._keys[place], self.shelves[place], self._scores[place]
        self._renumber(place)
        low = (1 << place) - 1
        self._each(lambda mask: (mask & low) | (mask >> (place + 1) << place))

    def offer(self, shelf: Shelf, count_before: int) -> None:
        """So many GPUs were on offer before; `count_offered` are now."""
        free, count = self._free, shelf.count_offered
        if count == count_before:
            return
        bit = 1 << self._place[shelf]
        while len(free) <= count:
            free.append(0)
        for n in range(min(count, count_before) + 1, max(count, count_before) + 1):
            free[n] ^= bit

    def show(self, shelf: Shelf) -> None:
        bit = 1 << self._place[shelf]
        self.online = self.online | bit if shelf.machine.online else self.online & ~bit

    # Sets

    def free(self, count: int) -> Mask:
        return self._free[count] if count < len(self._free) else 0

    @property
    def free_most(self) -> int:
        return len(self._free) - 1

    def meeting(self, row: Row, ask: Ask) -> Mask:
        """Those that meet the limit; where `row.loosen` loosens what is asked, perhaps some more."""
        values = row.part(ask)
        known = self._masks.get((row.limit, values))
        if known is not None:
            return known[0]
        met, looser = row.met, row.loosened(ask)
        return self._keep((row.limit, values), lambda shelf: met(looser, shelf))

    def host_count(self, mask: Mask) -> int:
        """How many hosts the shelves are of."""
        known = self._masks.get(_SEVERAL)
        several = known[0] if known else self._keep(_SEVERAL, lambda shelf: len(shelf.machine.shelves) > 1)
        several &= mask
        return (mask & ~several).bit_count() + len({shelf.host_id for shelf in self.members(several)})

    def _keep(self, key: object, holds: Callable[[Shelf], bool]) -> Mask:
        if len(self._masks) >= _MASKS_MAX:
            self._masks.clear()
        mask = self._mask_of(holds)
        self._masks[key] = mask, holds
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
        equals = (mask & ((1 << end) - 1)) >> place
        if equals != 1:
            # Of equal score: the fewest free, and of these the first.
            for n in range(count + 1, len(self._free)):
                fewest = equals & ~(self._free[n] >> place)
                if fewest:
                    equals = fewest
                    break
        return self.shelves[place + (equals & -equals).bit_length() - 1]

    def _mask_of(self, holds: Callable[[Shelf], bool]) -> Mask:
        digits = "".join(["1" if holds(shelf) else "0" for shelf in reversed(self.shelves)])
        return int(digits, 2) if digits else 0

    def _each(self, shift: Callable[[Mask], Mask]) -> None:
        self._free = [shift(mask) for mask in self._free]
        self.online = shift(self.online)
        self._masks = {key: (shift(mask), holds) for key, (mask, holds) in self._masks.items()}

    def _renumber(self, place: int) -> None:
        for later in range(place, len(self.shelves)):
            self._place[self.shelves[later]] = later

    def _key(self, shelf: Shelf) -> _Key:
        return score_of(self._policy, shelf), shelf.price, shelf.host_id, shelf.model
