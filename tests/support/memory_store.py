"""The market in memory, in plain Python.

For tests that want the rules of the store and nothing of its databases. What it does, the databases do: the
contract's tests run on all of them. Not here is what there can only be in a database: its constraints, its
migrations, rows that nothing can be made of, and the audits that look for rows which no code would write.
"""

from collections.abc import Mapping, Sequence

from coordinator.domain.archive import Archived
from coordinator.domain.restoration import Restoration
from tests.support.memory_books import MemoryBooks
from tests.support.memory_people import MemoryPeople


class MemoryStore(MemoryBooks, MemoryPeople):
    def __init__(self) -> None:
        super().__init__()
        self.topics: set[str] = set()

    def wake(self, *topics: str) -> None:
        self.topics.update(topics)

    def restoration(self) -> Restoration | None:
        """It lives no longer than its process: nobody has a backup of it."""
        return None

    def archived(self, job_ids: Sequence[str]) -> Mapping[str, Sequence[Archived]]:
        return {}
