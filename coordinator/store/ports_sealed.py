"""What of orders nobody may read, as a store keeps it."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class SealedParts(Protocol):
    """What of orders nobody may read. A job's goes with its end, whoever saves that."""

    def insert_sealed(self, boxes: Mapping[str, bytes]) -> None:
        """By job; at most one for each."""
        ...

    def sealed(self, job_ids: Sequence[str]) -> Mapping[str, bytes]:
        """Of those that have one."""
        ...

    def sealed_after(self, job_id: str, limit: int) -> Sequence[tuple[str, str, bytes]]:
        """Job, the account that it is for, and the box; in the order of the jobs' ids."""
        ...

    def reseal(self, job_id: str, box: bytes) -> None:
        """Another box in the place of the one there is."""
        ...
