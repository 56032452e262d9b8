"""Who was heard since it was last written down: most beats say no more than that their host is there."""

from collections.abc import Mapping

from coordinator.domain.metering import Stamp


class Attendance:
    def __init__(self) -> None:
        self._heard: dict[str, Stamp] = {}

    def heard(self, host_id: str, now: Stamp) -> None:
        self._heard[host_id] = now

    def take(self) -> Mapping[str, Stamp]:
        """Everybody heard since the last `take`, and when."""
        heard, self._heard = self._heard, {}
        return heard

    def put_back(self, heard: Mapping[str, Stamp]) -> None:
        """It could not be written down; the next `take` has it again."""
        self._heard = {**heard, **self._heard}
