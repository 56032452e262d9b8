"""The store's contract on the market in memory: the very tests that the databases pass."""

import pytest

from tests.contract import (
    test_store,
    test_store_books,
    test_store_claims,
    test_store_hosts,
    test_store_many,
    test_store_people,
)
from tests.support.memory_store import MemoryStore
from tests.support.store_fixtures import seed

_MODULES = (
    test_store,
    test_store_books,
    test_store_claims,
    test_store_hosts,
    test_store_many,
    test_store_people,
)
# What only a database has: its constraints, its migrations, and the audits that look for rows which no code
# would write.
_OF_DATABASES = {
    "test_a_broken_row_is_told_and_its_others_are_read",
    "test_both_databases_are_what_production_makes",
    "test_every_verb_is_tried_here",
    "test_the_audit_finds_what_is_broken",
    "test_what_is_in_order_is_found_in_order",
    "test_what_upkeep_asks_for",
}


@pytest.fixture
def tx() -> MemoryStore:
    return MemoryStore()


two = test_store_claims.two


@pytest.fixture
def market(tx: MemoryStore) -> MemoryStore:
    seed(tx)  # type: ignore[arg-type]
    return tx


globals().update(
    {
        name: test
        for module in _MODULES
        for name, test in vars(module).items()
        if name.startswith("test_") and callable(test) and name not in _OF_DATABASES
    }
)
