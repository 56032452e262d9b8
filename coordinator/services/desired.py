"""What should be, to an agent: the attempts that its host should hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coordinator.domain.job import NO_ORIGIN, Attempt, Job, JobSpec, Origin
from coordinator.domain.states import AttemptState
from coordinator.store.ports import Transaction

_STARTING = frozenset({AttemptState.ASSIGNED, AttemptState.PREPARING})


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One attempt as its host should have it."""

    attempt: Attempt
    spec: JobSpec
    account_id: str
    # What of the order nobody else may see, as long as the host needs it for the start.
    sealed: bytes | None = None
    origin: Origin = NO_ORIGIN


def desired(tx: Transaction, host_ids: Sequence[str]) -> list[list[Wanted]]:
    """What each of these hosts should hold."""
    held = tx.attempts_on_hosts(sorted(set(host_ids)))
    job_ids = {attempt.job_id for of in held.values() for attempt in of}
    jobs = tx.jobs(sorted(job_ids)) if job_ids else {}
    starting = {attempt.job_id for of in held.values() for attempt in of if attempt.state in _STARTING}
    boxes = tx.sealed(sorted(job_id for job_id in starting if jobs[job_id].spec.is_confidential))
    return [
        [_wanted(attempt, jobs[attempt.job_id], boxes) for attempt in held.get(host_id, ())]
        for host_id in host_ids
    ]


def _wanted(attempt: Attempt, job: Job, boxes: Mapping[str, bytes]) -> Wanted:
    sealed = boxes.get(job.id) if attempt.state in _STARTING else None
    return Wanted(attempt=attempt, spec=job.spec, account_id=job.account_id, sealed=sealed, origin=job.origin)
