"""Nothing gets through between agent and coordinator for a while, and neither is told so.

How long a host may be silent is the coordinator's to say; to the agent it is one thing: what is paid may run.
So one partition shows both: a job that is paid for beyond it, and one that is not.
"""

import asyncio

from agent.executor.process import ProcessExecutor
from agent.link import client
from tests.integration.test_agent import CLOCK, check_complete, numbered
from tests.integration.test_agent_link import Party, whole
from tests.rig.parts import wait_until
from tests.support.agent_process import job_processes
from tests.support.fake_coordinator import desired_attempt
from tests.support.line import Line
from usance.v1 import types_pb2

# Numbers its lines without end, until it finds a file; then it says how many there were.
COUNTING = "i=0; until test -e {go}; do i=$((i+1)); echo line $i; sleep 0.02; done; echo $i >&2; exit 7"
DEAF = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


def test_what_is_paid_runs_through_a_partition_and_what_is_not_ends_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "BACKOFF_MS_MIN", 10)
    monkeypatch.setattr(client, "BACKOFF_MS_MAX", 200)
    monkeypatch.setattr(client, "SILENCE_MS_MIN", 500)
    lines: list[Line] = []

    def line_to(address: str) -> str:
        lines.append(Line(address))
        return lines[0].address

    async def story(party: Party) -> None:
        coordinator, (line,) = party.coordinator, lines
        coordinator.beat_interval_ms = 100
        coordinator.cut()
        await coordinator.until(lambda: len(coordinator.hellos) == 2, "it beats more often")
        begun_ms = CLOCK.boot_ms()
        paid = coordinator.want(
            desired_attempt("sh", "-c", COUNTING.format(go=tmp_path / "go"), attempt_id="paid")
        )
        short = coordinator.want(
            desired_attempt("sh", "-c", DEAF, attempt_id="short", paid_through_ms=2_000, grace_ms=200)
        )
        await coordinator.until(lambda: bool(paid.stdout and short.stdout), "both run")
        line.cut_off()
        await asyncio.to_thread(
            wait_until, lambda: not job_processes(tmp_path, "short.1"), "what is not paid ends"
        )
        ended_ms = CLOCK.boot_ms()
        await asyncio.to_thread(wait_until, lambda: not party.link.connected, "the agent has noticed")
        assert job_processes(tmp_path, "paid.1")
        assert not short.ended
        (tmp_path / "go").touch()
        await asyncio.to_thread(
            wait_until, lambda: not job_processes(tmp_path, "paid.1"), "what is paid ends by itself"
        )
        assert not paid.ended
        line.mend()
        for taken in (paid, short):
            await coordinator.until(lambda taken=taken: taken.complete, "all is told", deadline_s=60)  # type: ignore[misc]
        assert check_complete(short).end_reason == types_pb2.END_REASON_PAID_THROUGH
        assert 2_000 <= short.last.run_ms <= ended_ms - begun_ms
        last = check_complete(paid)
        assert (last.end_reason, last.exit_code) == (types_pb2.END_REASON_EXITED, 7)
        assert bytes(paid.stdout) == numbered(int(paid.stderr))

    executor = ProcessExecutor(tmp_path / "runs", CLOCK)
    try:
        asyncio.run(whole(story, tmp_path, 64 << 20, executor=executor, line_to=line_to))
    finally:
        for line in lines:
            line.close()
