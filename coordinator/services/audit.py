"""Every invariant of the ledger and of the market, checked from what is stored."""

from coordinator.store.ports import Transaction


def run(tx: Transaction) -> tuple[list[str], int]:
    """A sentence for each violation, and how many transfers were looked at."""
    ledger_violations, transfers = tx.audit()
    return [*ledger_violations, *tx.market_violations()], transfers
