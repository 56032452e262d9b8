"""What longer runs of the simulation found in the agent, as plain tests with their story.

What they found in the coordinator is in tests/integration/test_coordinator_giving_up.py.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent import memory
from agent.domain.attempt import AttemptKey, DesiredAttempt, Isolation, JobOrder
from agent.runner import Runner


def test_an_attempt_that_could_not_be_noted_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full when a job came. By the time there was room again the buyer had cancelled, and the
    job's folder stayed until the agent was started again (seeds 229 and 251)."""

    def full(*_: object) -> None:
        raise OSError(28, "no space left")

    nobody: Any = None
    order = JobOrder(
        key=AttemptKey(attempt_id="att_1", epoch=1),
        image="image",
        command=("work",),
        env={},
        gpu_uuids=("GPU-1",),
        isolation_min=Isolation.CONTAINER,
        stop_grace_ms=0,
        run_ms_max=1_000,
        memory_bytes=0,
        cpu_milli=0,
    )
    want = DesiredAttempt(
        order=order,
        paid_through_ms=1_000,
        stop_reason=None,
        usage_number_acknowledged=0,
        log_offset_acknowledged=0,
    )
    monkeypatch.setattr(memory.MemoryFile, "save", full)

    async def script() -> None:
        runner = Runner(
            folder=tmp_path,
            executor=nobody,
            clock=nobody,
            gpus=nobody,
            record_ms=1_000,
            output_waiting_bytes_max=1,
        )
        with pytest.raises(OSError, match="no space left"):
            await runner.apply([want])
        assert runner.keys() == ()

    asyncio.run(script())
    assert list(tmp_path.iterdir()) == []
