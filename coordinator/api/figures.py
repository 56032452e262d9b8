"""How running jobs go, as their hosts said last.

For people to look at and for nothing else, so it is only kept in memory, by the coordinator that the host is
connected to: as much as one beat brings of each host, and gone with its connection.
"""

from collections.abc import Iterable

from coordinator.api.validate import line, whole
from coordinator.domain.refusal import invalid
from usance.v1 import host_pb2 as h
from usance.v1 import market_pb2 as m
from usance.v1 import types_pb2 as t

_GPUS_MAX = 64
_INT32_MAX, _INT64_MAX = 2**31 - 1, 2**63 - 1
_FIELD = "beat.attempts.figures"
_LIMITS = {
    "utilization_percent": (0, 100),
    "memory_used_bytes": (0, _INT64_MAX),
    "power_mw": (0, _INT64_MAX),
    "temperature_c": (-300, 10_000),
}


class Figures:
    """The figures of each host's attempts, and when it said so."""

    def __init__(self) -> None:
        self._of_host: dict[str, tuple[int, dict[str, t.JobFigures]]] = {}

    def said(self, host_id: str, reports: Iterable[h.AttemptReport], now_ms: int) -> None:
        """All that the host says now, in place of what it said before. Raises Refusal."""
        figures = {each.attempt_id: _checked(each.figures) for each in reports if each.HasField("figures")}
        if figures:
            self._of_host[host_id] = now_ms, figures
        else:
            self._of_host.pop(host_id, None)

    def left(self, host_id: str) -> None:
        """The host is no longer connected."""
        self._of_host.pop(host_id, None)

    def fill(self, attempt: m.Attempt) -> None:
        """What is known of an attempt, told of its own GPUs alone, and by its own host."""
        said_ms, figures = self._of_host.get(attempt.host_id, (0, {}))
        found = figures.get(attempt.attempt_id)
        if found is None or attempt.state not in (t.ATTEMPT_STATE_RUNNING, t.ATTEMPT_STATE_STOPPING):
            return
        own = {gpu.uuid for gpu in attempt.gpus}
        attempt.figures.CopyFrom(found)
        del attempt.figures.gpus[:]
        attempt.figures.gpus.extend(gpu for gpu in found.gpus if gpu.gpu_uuid in own)
        attempt.figures_at_ms = said_ms


def _checked(message: t.JobFigures) -> t.JobFigures:
    if len(message.gpus) > _GPUS_MAX:
        raise invalid(f"{_FIELD}.gpus", f"at most {_GPUS_MAX} items, not {len(message.gpus)}")
    whole(f"{_FIELD}.cpu_milli", message.cpu_milli, 0, _INT32_MAX)
    whole(f"{_FIELD}.memory_bytes", message.memory_bytes, 0, _INT64_MAX)
    for gpu in message.gpus:
        line(f"{_FIELD}.gpus.gpu_uuid", gpu.gpu_uuid, 128, empty=False)
        for field, (least, most) in _LIMITS.items():
            whole(f"{_FIELD}.gpus.{field}", getattr(gpu, field), least, most)
    # A copy: what it came in is big.
    kept = t.JobFigures()
    kept.CopyFrom(message)
    return kept
