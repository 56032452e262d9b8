"""What is asked of the store about the database as a whole: the rest of `coordinator.store.ports`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from coordinator.domain.archive import Archived
from coordinator.domain.job import Attempt, Job
from coordinator.domain.restoration import Restoration


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a database knows."""

    # The last moment of which it knows anything; 0 where it knows nothing.
    known_ms: int
    event_number: int
    transfers: int
    # Of the newest seal; empty before the first.
    seal_hash: bytes


@dataclass(frozen=True, kw_only=True)
class Stranger:
    """An attempt that a host held and that is not known here."""

    host_id: str
    attempt_id: str
    run_ms: int
    happened_ms: int


class Keeping(Protocol):
    def restoration(self) -> Restoration | None:
        """The latest; None where the database was never restored."""
        ...

    def restorations(self) -> Sequence[Restoration]:
        """Oldest first."""
        ...

    def insert_restoration(self, made: Restoration) -> None:
        """From now on events have numbers beyond those left out."""
        ...

    def standing(self) -> Standing: ...

    def strangers(self, since_ms: int) -> Sequence[Stranger]: ...

    def account_ids(self) -> Sequence[str]: ...

    def host_ids(self) -> Sequence[str]:
        """Those that were not revoked."""
        ...

    def close_what_was_open(self, now_ms: int) -> int:
        """Unused enrolment tokens and invitations, and sessions, are good no longer; how many were."""
        ...

    def revoke_tokens(self, now_ms: int) -> int:
        """Every access token, the operators' too; how many were good."""
        ...

    def archivable(self, ended_before_ms: int, after_id: str, limit: int) -> Sequence[Job]:
        """Jobs that ended before then, of which nobody owes anything and whose records are still here."""
        ...

    def output_droppable(self, ended_before_ms: int, after_id: str, limit: int) -> Sequence[Job]:
        """The same of those whose output is still here."""
        ...

    def insert_archived(self, parts: Sequence[Archived]) -> None:
        """What they name is deleted."""
        ...

    def archived(self, job_ids: Sequence[str]) -> Mapping[str, Sequence[Archived]]:
        """What of these jobs has left."""
        ...

    def archived_after(self, after: tuple[str, str], limit: int) -> Sequence[Archived]:
        """By job and part."""
        ...

    def jobs_after(self, job_id: str, limit: int) -> Sequence[Job]:
        """All there are, by id."""
        ...

    def attempts_since_restored(self, restored: Restoration) -> Sequence[Attempt]:
        """Those that were live when the database was restored."""
        ...
