"""The log of acts: who did what that needs trust or moves money."""

from collections.abc import Sequence

from coordinator.domain.act import Act
from coordinator.services.accounts import account_by_name
from coordinator.store.ports import Transaction


def keep_all(tx: Transaction, acts: Sequence[Act]) -> list[None]:
    """Those that changed nothing; what changed something was kept with it."""
    tx.append_acts(acts)
    return [None] * len(acts)


def page(tx: Transaction, account_name: str, since_ms: int, before_id: str, limit: int) -> Sequence[Act]:
    who = account_by_name(tx, account_name).id if account_name else ""
    return tx.acts_before(who, since_ms, before_id, limit)
