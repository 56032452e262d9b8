"""What the services may ask of the store about tokens and books: the rest of `coordinator.store.ports`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from coordinator.domain.account import Token
from coordinator.domain.act import Act
from coordinator.domain.cap import SpendingCap
from coordinator.domain.credit import Refund
from coordinator.domain.job import Attempt, Job
from coordinator.domain.states import JobState
from ledger.entries import Statement
from runtime.ids import derived_uuid


def hold_id(job_id: str) -> UUID:
    """The transfer by which a job's budget was set aside at submit."""
    return derived_uuid("hold", job_id)


class Tokens(Protocol):
    """An account's tokens, each known by its name."""

    def tokens_before(
        self, account_id: str, good_at_ms: int | None, before: tuple[int, str] | None, limit: int
    ) -> Sequence[Token]:
        """Newest first, after the one made then with this name; `good_at_ms` leaves out those not good."""
        ...

    def save_token_uses(self, uses: Mapping[bytes, int]) -> None:
        """When each was last used, by its digest."""
        ...

    def append_acts(self, acts: Sequence[Act]) -> None: ...

    def acts_before(self, who: str, since_ms: int, before_id: str, limit: int) -> Sequence[Act]:
        """Newest first; of all, where `who` is empty."""
        ...

    def revoke_token(self, account_id: str, token_id: str, now_ms: int) -> Token | None:
        """As it is now, revoked; None: the account has none of this name."""
        ...


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """Of the store: how much of what there is. Jobs are those that have not ended."""

    database: str
    jobs: Mapping[JobState, int]
    queued_since_ms: int
    gpus_sold: int
    # Of the running attempt that is furthest behind: run time reported and not settled.
    settlement_lag_ms: int
    transfers: int
    transfers_sealed: int
    database_bytes: int
    # SQLite's write-ahead log; 0 elsewhere.
    wal_bytes: int


class Books(Protocol):
    """What was paid and earned, read page by page. From `since_ms` on and before `until_ms`."""

    def statement(self, code: str, after_seq: int, limit: int, since_ms: int, until_ms: int) -> Statement: ...

    def jobs_taken_in(
        self, account_id: str, since_ms: int, until_ms: int, before_id: str, limit: int
    ) -> Sequence[Job]:
        """Newest first."""
        ...

    def caps(self, account_ids: Sequence[str]) -> Mapping[str, SpendingCap]:
        """Of those who have set one."""
        ...

    def save_cap(self, account_id: str, cap: SpendingCap | None) -> None: ...

    def spent(self, account_ids: Sequence[str], since_ms: int, until_ms: int) -> Mapping[str, int]:
        """What the jobs taken in then have cost, or may still cost where they have not ended."""
        ...

    def refunds_of(self, job_ids: Sequence[str]) -> Mapping[str, Sequence[Refund]]:
        """What the operator gave back of each, oldest first; of all of them, also those without."""
        ...

    def vitals(self) -> Vitals: ...

    def open_jobs(self) -> Mapping[str, int]:
        """How many jobs that have not ended each account has; without those that have none."""
        ...

    def output_bytes(self) -> Mapping[str, int]:
        """How much of the output of its jobs is stored, by account; without those that have none."""
        ...

    def attempts_sold(
        self,
        seller_account_id: str,
        since_ms: int,
        until_ms: int,
        before_id: str,
        limit: int,
        host_id: str = "",
    ) -> Sequence[Attempt]:
        """Newest first; of all the seller's hosts, or of one."""
        ...
