"""Attempts as their last commit left them, so that what runs on is not read again for each of its records.

The database alone says what is: a row is written over what is kept of it only where the guard holds (epoch,
state, last usage record, output), so a value that is out of date fails instead of being charged by. All of it
belongs to the writer's thread.
"""

from collections.abc import Iterable

from coordinator.domain.job import Attempt
from coordinator.store.codec import is_unreleased

# Some 3 KB each.
KEPT_MAX = 20_000


class Kept:
    def __init__(self) -> None:
        self._attempts: dict[str, Attempt] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def attempt(self, attempt_id: str) -> Attempt | None:
        return self._attempts.get(attempt_id)

    def keep(self, attempts: Iterable[Attempt]) -> None:
        """As they are committed. What was not asked for for longest goes first."""
        for item in attempts:
            self._attempts.pop(item.id, None)
            if is_unreleased(item):
                self._attempts[item.id] = item
        while len(self._attempts) > KEPT_MAX:
            del self._attempts[next(iter(self._attempts))]

    def forget(self, attempt_ids: Iterable[str]) -> None:
        """A transaction that had to do with them failed: perhaps because of what is kept, and perhaps it was
        committed all the same."""
        for attempt_id in attempt_ids:
            self._attempts.pop(attempt_id, None)
