"""Which runs of agents came for each host of late. Kept in memory: who takes turns goes on doing it."""

from coordinator.domain.clones import Arrival, are_two, with_arrival


class Arrivals:
    def __init__(self) -> None:
        self._of: dict[str, tuple[Arrival, ...]] = {}

    def came(self, host_id: str, run: str, now_ms: int) -> bool:
        """Does this show that two machines have its identity? Told once, then it has to be shown anew."""
        arrivals = with_arrival(self._of.get(host_id, ()), run, now_ms)
        two = are_two(arrivals)
        self._of[host_id] = arrivals[-1:] if two else arrivals
        return two
