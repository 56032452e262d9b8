"""One transaction on the database: all the store's verbs, each done at once."""

from sqlalchemy import Connection

from coordinator.store.sql_accounts import SqlAccounts
from coordinator.store.sql_books import SqlBooks
from coordinator.store.sql_checks import SqlChecks
from coordinator.store.sql_hosts import SqlHosts
from coordinator.store.sql_jobs import SqlJobs
from coordinator.store.sql_money import SqlMoney
from coordinator.store.sql_sealed import SqlSealed
from coordinator.store.sql_tokens import SqlTokens
from coordinator.store.sql_usage import SqlUsage


class SqlTransaction(
    SqlJobs, SqlUsage, SqlHosts, SqlAccounts, SqlTokens, SqlMoney, SqlBooks, SqlChecks, SqlSealed
):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.topics: set[str] = set()

    def wake(self, *topics: str) -> None:
        self.topics.update(topics)
