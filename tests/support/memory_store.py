"""The market in memory, in plain Python.

For tests that want the rules of the store and nothing of its databases. What it does, the databases do: the
contract's tests run on all of them. Not here is what there can only be in a database: its constraints, its
migrations, rows that nothing can be made of, and the audits that look for rows which no code would write.
"""

from tests.support.memory_books import MemoryBooks


class MemoryStore(MemoryBooks):
    def __init__(self) -> None:
        super().__init__()
        self.topics: set[str] = set()

    def wake(self, *topics: str) -> None:
        self.topics.update(topics)
