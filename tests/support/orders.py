"""Orders and attempts for tests of the agent, with everything that a test does not care about filled in."""

from typing import Any

from agent.domain.attempt import AttemptKey, DesiredAttempt, EndReason, Isolation, JobOrder


def order(attempt_id: str = "a", epoch: int = 1, **changes: Any) -> JobOrder:
    values: dict[str, Any] = {
        "key": AttemptKey(attempt_id=attempt_id, epoch=epoch),
        "image": "tiny:1",
        "command": ("true",),
        "env": {},
        "gpu_uuids": (),
        "isolation_min": Isolation.CONTAINER,
        "stop_grace_ms": 1_000,
        "run_ms_max": 86_400_000,
        "memory_bytes": 0,
        "cpu_milli": 0,
    }
    return JobOrder(**{**values, **changes})


def desired(
    attempt_id: str = "a",
    epoch: int = 1,
    *,
    paid_through_ms: int = 10_000,
    stop_reason: EndReason | None = None,
    usage: int = 0,
    output: int = 0,
    **changes: Any,
) -> DesiredAttempt:
    return DesiredAttempt(
        order=order(attempt_id, epoch, **changes),
        paid_through_ms=paid_through_ms,
        stop_reason=stop_reason,
        usage_number_acknowledged=usage,
        log_offset_acknowledged=output,
    )
