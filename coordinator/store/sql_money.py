"""The ledger, in the same transaction as everything else."""

from collections.abc import Sequence

from sqlalchemy import func, select

from coordinator.domain.account import Balances
from coordinator.store.live import ONLY_LIVE_JOBS
from coordinator.store.sql_part import SqlPart
from coordinator.store.tables import job
from ledger import audit as ledger_audit
from ledger import book, chart
from ledger.entries import Outcome, Transfer
from ledger.seal import seal


class SqlMoney(SqlPart):
    def balances(self, account_ids: Sequence[str]) -> dict[str, Balances]:
        wallets = [chart.wallet(account_id) for account_id in account_ids]
        earnings = [chart.earnings(account_id) for account_id in account_ids]
        found = book.balances(self.connection, [*wallets, *earnings])
        held = self._held_micro(account_ids)
        return {
            account_id: Balances(
                wallet_micro=found.get(chart.wallet(account_id), 0),
                held_micro=held.get(account_id, 0),
                earnings_micro=found.get(chart.earnings(account_id), 0),
            )
            for account_id in account_ids
        }

    def wallets(self, account_ids: Sequence[str]) -> dict[str, int]:
        found = book.balances(self.connection, [chart.wallet(account_id) for account_id in account_ids])
        return {account_id: found.get(chart.wallet(account_id), 0) for account_id in account_ids}

    def post(self, transfers: Sequence[Transfer], now_ms: int) -> Sequence[Outcome]:
        return book.post(self.connection, transfers, now_ms) if transfers else []

    def post_surely(self, transfers: Sequence[Transfer], now_ms: int) -> None:
        for outcome in self.post(transfers, now_ms):
            assert outcome.ok, outcome

    def open_accounts(self, codes: Sequence[str], now_ms: int) -> None:
        book.open_accounts(self.connection, codes, now_ms)

    def trial_balance(self) -> Sequence[tuple[str, int]]:
        return [
            (str(kind), micro)
            for asset in book.trial_balance(self.connection)
            for kind, micro in asset.by_kind.items()
        ]

    def seal(self, now_ms: int) -> tuple[int, bytes] | None:
        made = seal(self.connection, now_ms)
        return (made[-1].last_seq, made[-1].hash) if made else None

    def audit(self) -> tuple[list[str], int]:
        violations = [str(violation) for violation in ledger_audit.audit(self.connection)]
        return violations, book.transfer_count(self.connection)

    def _held_micro(self, account_ids: Sequence[str]) -> dict[str, int]:
        """What is in escrow: of every live job, the budget that is not charged yet."""
        rows = self.connection.execute(
            select(job.c.account_id, func.sum(job.c.budget_micro - job.c.charged_micro))
            .where(job.c.account_id.in_(account_ids), ONLY_LIVE_JOBS)
            .group_by(job.c.account_id)
        )
        return {account_id: int(micro) for account_id, micro in rows}
