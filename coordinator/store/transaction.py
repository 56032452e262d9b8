"""One transaction on the database: all the store's verbs, each done at once."""

from collections.abc import Sequence

from sqlalchemy import Connection

from coordinator.domain.host import HostState
from coordinator.store.sql_books import SqlBooks
from coordinator.store.sql_checks import SqlChecks
from coordinator.store.sql_hosts import SqlHosts
from coordinator.store.sql_jobs import SqlJobs
from coordinator.store.sql_keeping import SqlKeeping
from coordinator.store.sql_money import SqlMoney
from coordinator.store.sql_people import SqlPeople
from coordinator.store.sql_sealed import SqlSealed
from coordinator.store.sql_tokens import SqlTokens
from coordinator.store.sql_usage import SqlUsage
from coordinator.store.sql_vitals import SqlVitals
from ledger.entries import Outcome, Status, Transfer


class SqlTransaction(
    SqlJobs,
    SqlUsage,
    SqlHosts,
    SqlPeople,
    SqlTokens,
    SqlMoney,
    SqlBooks,
    SqlChecks,
    SqlSealed,
    SqlKeeping,
    SqlVitals,
):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.topics: set[str] = set()
        # For who counts what happens: what was posted, and how hosts are heard since.
        self.moved: list[Transfer] = []
        self.linked: list[HostState] = []

    def wake(self, *topics: str) -> None:
        self.topics.update(topics)

    def post(self, transfers: Sequence[Transfer], now_ms: int) -> Sequence[Outcome]:
        outcomes = super().post(transfers, now_ms)
        answered = zip(transfers, outcomes, strict=True)
        self.moved += [transfer for transfer, outcome in answered if outcome.status is Status.POSTED]
        return outcomes

    def save_link(self, host_id: str, before: HostState, after: HostState, reason: str, now_ms: int) -> bool:
        saved = super().save_link(host_id, before, after, reason, now_ms)
        if saved:
            self.linked.append(after)
        return saved
