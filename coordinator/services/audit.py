"""Every invariant of the ledger and of the market, checked from what is stored."""

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.store.ports import Transaction

SAMPLE_JOBS = 100


def run(tx: Transaction) -> tuple[list[str], int]:
    """A sentence for each violation, and how many transfers were looked at."""
    ledger_violations, transfers = tx.audit()
    return [*ledger_violations, *tx.market_violations()], transfers


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A look at a part of it: the newest, and the next of all in turn."""

    violations: Sequence[str]
    jobs: int
    # Where the next sample goes on.
    after_job_id: str


def sample(tx: Transaction, after_job_id: str) -> Sample:
    violations, ids = tx.sample_violations(after_job_id, SAMPLE_JOBS)
    last = ids[-1] if ids else ""
    # Those in turn come last; when none came, they begin anew.
    return Sample(violations=violations, jobs=len(set(ids)), after_job_id=last if last > after_job_id else "")
