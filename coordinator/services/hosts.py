"""A seller's look at their own hosts."""

from coordinator.domain.host import HostRoom
from coordinator.store.ports import Transaction


def of_seller(tx: Transaction, account_id: str) -> list[HostRoom]:
    return [room for room in tx.rooms() if room.host.account_id == account_id]
