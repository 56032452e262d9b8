"""A real agent with real child processes, against a coordinator that keeps to the protocol."""

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.settings import EXAMPLE, Settings, parse
from runtime.clock import SystemClock
from tests.rig.parts import wait_until
from tests.support.agent_process import AgentProcess, job_processes, spawner, supervisors
from tests.support.fake_coordinator import HOST_ID, FakeCoordinator, Taken, desired_attempt
from usance.v1 import host_pb2, types_pb2

NUMBERED = (
    "i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo line $i; sleep 0.02; done; echo done >&2; exit 7"
)
SLOWLY = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"

CLOCK = SystemClock()

Story = Callable[[FakeCoordinator, AgentProcess], Awaitable[None]]


@pytest.fixture
def tell(tmp_path: Path):
    """Runs a story with a coordinator and an enrolled, running agent, and checks that all was by the book."""

    def run(story: Story) -> None:
        async def whole() -> None:
            coordinator = FakeCoordinator()
            await coordinator.start()
            agent = AgentProcess(tmp_path / "state")
            try:
                await agent.enroll(coordinator.token)
                await agent.start()
                await coordinator.until(lambda: bool(coordinator.hellos), "the agent says hello")
                await story(coordinator, agent)
            except BaseException:
                print(agent.log_text())
                raise
            finally:
                await agent.clear_up()
                await coordinator.stop()
            assert coordinator.faults == []
            assert "Traceback" not in agent.log_text()

        asyncio.run(whole())

    return run


def numbered(count: int) -> bytes:
    return b"".join(f"line {n}\n".encode() for n in range(1, count + 1))


def check_complete(taken: Taken) -> host_pb2.AttemptReport:
    """Everything that the end says agrees with what came."""
    last = taken.last
    totals = last.log_totals
    assert hashlib.sha256(taken.stdout).digest() == totals.stdout_sha256
    assert hashlib.sha256(taken.stderr).digest() == totals.stderr_sha256
    assert [record.number for record in taken.records] == list(range(1, last.usage_number_last + 1))
    assert (taken.records[-1].end_ms if taken.records else 0) == last.run_ms
    return last


def gpu(coordinator: FakeCoordinator) -> str:
    return coordinator.hellos[0].facts.gpus[0].uuid


def test_a_job_from_start_to_forgetting(tell):
    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        hello = coordinator.hellos[0]
        assert hello.facts.isolation == types_pb2.ISOLATION_PROCESS
        assert [g.simulated for g in hello.facts.gpus] == [True, True]
        assert [(p.model, p.gpu_hour_price_micro) for p in hello.terms.prices] == [("SIMULATED GPU", 500_000)]
        uuid = gpu(coordinator)
        script = NUMBERED.format(count=20) + '; echo "$USANCE_SIMULATED_GPUS|$MINE"'
        taken = coordinator.want(desired_attempt("sh", "-c", script, gpu_uuids=(uuid,), env={"MINE": "yes"}))
        await coordinator.until(lambda: taken.complete, "the job is complete")
        last = check_complete(taken)
        assert (last.exit_code, last.end_reason) == (7, types_pb2.END_REASON_EXITED)
        assert bytes(taken.stdout) == numbered(20)
        assert bytes(taken.stderr) == b"done\n"
        states = [report.state for report in taken.reports]
        assert states == sorted(states)
        assert {report.container_id for report in taken.reports if report.run_ms} == {last.container_id}
        assert [use.gpu_uuid for use in taken.records[-1].gpus] == [uuid]
        shown = json.loads(agent.command("status", flags=["--json"]).stdout)
        assert (shown["host_id"], shown["agent_running"]) == (HOST_ID, True)
        assert [found["state"] for found in shown["attempts"]] == ["ended"]
        coordinator.drop("attempt_1")
        await coordinator.until(lambda: not coordinator.beats[-1].attempts, "the attempt is forgotten")
        folders = [agent.state_dir / name for name in ("attempts", "runs")]

        def empty() -> bool:
            return not any(any(folder.iterdir()) for folder in folders)

        # It is told of no more while it is still being cleared away.
        await asyncio.to_thread(wait_until, empty, "nothing of it is left")

    tell(story)


def test_kills_lose_nothing_and_double_nothing(tell):
    """As many as are promised are tried in test_agent_docker.py, with an engine."""

    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        script, asked_ms = NUMBERED.format(count=150), CLOCK.boot_ms()
        taken = coordinator.want(desired_attempt("sh", "-c", script, gpu_uuids=(gpu(coordinator),)))
        for kills in range(3):
            reached = 100 + 300 * kills
            await coordinator.until(lambda at=reached: len(taken.stdout) >= at or taken.ended, "output comes")  # type: ignore[misc]
            await agent.kill()
            await agent.start()
        await coordinator.until(lambda: taken.complete, "the job is complete", deadline_s=60)
        last = check_complete(taken)
        assert bytes(taken.stdout) == numbered(150)
        assert (last.exit_code, last.end_reason) == (7, types_pb2.END_REASON_EXITED)
        assert len({report.container_id for report in taken.reports if report.container_id}) == 1
        assert 150 * 20 <= last.run_ms <= CLOCK.boot_ms() - asked_ms

    tell(story)


def test_runs_outlive_agent_and_spawner_whichever_is_killed(tell, tmp_path):
    """Also in the moment in which they start: then they start once, by whoever comes next."""

    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        def begin(name: str) -> Taken:
            script = f"echo x >> {tmp_path}/{name}; " + NUMBERED.format(count=100)
            return coordinator.want(desired_attempt("sh", "-c", script, attempt_id=name))

        jobs = {"first": begin("first")}
        await coordinator.until(lambda: jobs["first"].last.run_ms > 0, "the first runs")
        for number in range(9):
            name = f"job_{number}"
            jobs[name] = begin(name)
            if number % 2:
                await coordinator.until(lambda name=name: bool(jobs[name].reports), "it is taken on")  # type: ignore[misc]
            else:
                await coordinator.until(lambda name=name: bool(jobs[name].stdout), "it runs")  # type: ignore[misc]
            forker = spawner(agent.pid)
            if number % 3 and forker is not None:
                os.kill(forker, signal.SIGKILL)
            if number % 3 != 1:
                await agent.kill()
                await agent.start()
        for name, taken in jobs.items():
            await coordinator.until(lambda taken=taken: taken.complete, f"{name} is complete", deadline_s=60)  # type: ignore[misc]
            last = check_complete(taken)
            assert bytes(taken.stdout) == numbered(100)
            assert (last.exit_code, last.end_reason) == (7, types_pb2.END_REASON_EXITED)
            assert (tmp_path / name).read_text() == "x\n"

    tell(story)


def test_an_end_that_no_agent_saw_is_told_truly(tell, tmp_path):
    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        asked_ms = CLOCK.boot_ms()
        taken = coordinator.want(desired_attempt("sh", "-c", "sleep 0.5; echo bye; exit 5"))
        await coordinator.until(lambda: taken.last.run_ms > 0, "the job runs")
        await agent.kill()
        await asyncio.to_thread(wait_until, lambda: not supervisors(agent.state_dir), "the job has ended")
        gone_ms = CLOCK.boot_ms()
        await agent.start()
        await coordinator.until(lambda: taken.complete, "the job is complete")
        last = check_complete(taken)
        assert (last.exit_code, bytes(taken.stdout)) == (5, b"bye\n")
        # Not a moment of the time in which it was dead already.
        assert 0 < last.run_ms <= gone_ms - asked_ms

    tell(story)


def test_terminating_the_agent_leaves_the_job_alone(tell):
    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        taken = coordinator.want(desired_attempt("sh", "-c", SLOWLY))
        await coordinator.until(lambda: bytes(taken.stdout) == b"ready\n", "the job is ready")
        assert await agent.terminate() == 0
        assert job_processes(agent.state_dir, "attempt_1.1")
        assert len(supervisors(agent.state_dir)) == 1
        await agent.start()
        await coordinator.until(lambda: len(coordinator.hellos) == 2, "the agent is back")
        coordinator.desired["attempt_1"].stop_reason = types_pb2.END_REASON_CANCELLED
        await coordinator.until(lambda: taken.complete, "the job is stopped")
        last = check_complete(taken)
        assert (last.end_reason, last.exit_code) == (types_pb2.END_REASON_CANCELLED, 3)
        assert types_pb2.ATTEMPT_STATE_STOPPING in {report.state for report in taken.reports}

    tell(story)


def test_nothing_outlives_its_money_not_even_without_an_agent(tell):
    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        daemon = "setsid sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' & " + SLOWLY
        asked_ms = CLOCK.boot_ms()
        taken = coordinator.want(desired_attempt("sh", "-c", daemon, paid_through_ms=2_000, grace_ms=300))
        await coordinator.until(lambda: taken.last.run_ms > 0, "the job runs")
        await agent.kill()
        await asyncio.to_thread(
            wait_until, lambda: not job_processes(agent.state_dir, "attempt_1.1"), "all of the job is gone"
        )
        gone_ms = CLOCK.boot_ms()
        await agent.start()
        await coordinator.until(lambda: taken.complete, "the end is told")
        last = check_complete(taken)
        assert last.end_reason == types_pb2.END_REASON_PAID_THROUGH
        assert 2_000 <= last.run_ms <= gone_ms - asked_ms

    tell(story)


def test_a_killed_supervisor_takes_its_job_along(tell):
    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        stray = "setsid sh -c 'while :; do sleep 0.05; done' & " + SLOWLY
        taken = coordinator.want(desired_attempt("sh", "-c", stray))
        await coordinator.until(lambda: bytes(taken.stdout) == b"ready\n", "the job is ready")
        (supervisor,) = supervisors(agent.state_dir)
        os.kill(supervisor, signal.SIGKILL)
        await coordinator.until(lambda: taken.complete, "the loss is told")
        assert taken.last.end_reason == types_pb2.END_REASON_HOST_LOST
        assert not taken.last.HasField("exit_code")
        assert not job_processes(agent.state_dir, "attempt_1.1")

    tell(story)


def test_paying_on_lets_it_run_on(tell):
    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        wanted = desired_attempt("sh", "-c", "sleep 2; exit 4", paid_through_ms=1_000)
        taken = coordinator.want(wanted)
        await coordinator.until(lambda: taken.last.run_ms > 0, "the job runs")
        wanted.paid_through_ms = 600_000
        coordinator.want(wanted)
        await coordinator.until(lambda: taken.complete, "the job is complete")
        assert check_complete(taken).exit_code == 4

    tell(story)


def test_what_can_not_start_says_why(tell):
    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        refused = coordinator.want(
            desired_attempt("true", attempt_id="isolated", isolation=types_pb2.ISOLATION_CONTAINER)
        )
        absent = coordinator.want(desired_attempt("/no/such/program", attempt_id="absent"))
        strange = coordinator.want(desired_attempt("true", attempt_id="strange", gpu_uuids=("GPU-none",)))
        for taken in (refused, absent, strange):
            await coordinator.until(lambda taken=taken: taken.ended, "it ends")  # type: ignore[misc]
            assert (taken.last.run_ms, taken.last.usage_number_last) == (0, 0)
        assert refused.last.end_reason == types_pb2.END_REASON_START_FAILED
        assert "container" in refused.last.detail
        assert absent.last.end_reason == types_pb2.END_REASON_COMMAND_UNSTARTABLE
        assert "No such file" in absent.last.detail
        assert strange.last.end_reason == types_pb2.END_REASON_START_FAILED
        assert "GPU-none" in strange.last.detail

    tell(story)


def test_a_gpu_is_used_by_one_attempt_at_a_time_and_epochs_replace_each_other(tell):
    async def story(coordinator: FakeCoordinator, agent: AgentProcess) -> None:
        uuid = gpu(coordinator)
        first = coordinator.want(desired_attempt("sh", "-c", SLOWLY, attempt_id="first", gpu_uuids=(uuid,)))
        await coordinator.until(lambda: bytes(first.stdout) == b"ready\n", "the first is ready")
        second = coordinator.want(
            desired_attempt("sh", "-c", "exit 0", attempt_id="second", gpu_uuids=(uuid,))
        )
        await coordinator.until(lambda: "waiting" in second.last.detail, "the second waits")
        newer = desired_attempt("sh", "-c", "exit 8", attempt_id="first", epoch=2, gpu_uuids=(uuid,))
        again = coordinator.want(newer)
        await coordinator.until(lambda: second.complete, "the second got its turn")
        await coordinator.until(lambda: again.complete, "the newer epoch ran")
        assert check_complete(again).exit_code == 8
        assert not first.ended
        await coordinator.until(
            lambda: len(coordinator.beats[-1].attempts) == 2, "the older epoch is forgotten"
        )

    tell(story)


def test_the_commands_of_a_seller(tmp_path):
    async def story() -> None:
        coordinator = FakeCoordinator()
        await coordinator.start()
        agent = AgentProcess(tmp_path / "state")
        try:
            assert await asyncio.to_thread(lambda: agent.command("run", flags=flags).returncode) == 3
            bad = await asyncio.to_thread(agent.command, "enroll", "usance_enroll_nonsense!")
            assert (bad.returncode, "damaged" in bad.stderr) == (2, True)
            await agent.enroll(coordinator.token)
            key = (agent.state_dir / "key.pem").read_bytes()
            await agent.enroll(coordinator.token)
            assert (agent.state_dir / "key.pem").read_bytes() == key
            for name in ("key.pem", "identity.json"):
                assert (agent.state_dir / name).stat().st_mode & 0o777 == 0o600
            await agent.start()
            await coordinator.until(lambda: bool(coordinator.hellos), "the agent says hello")
            assert await asyncio.to_thread(lambda: agent.command("run", flags=flags).returncode) == 5
            wrong = await asyncio.to_thread(lambda: agent.command("run", flags=flags[:2]))
            assert (wrong.returncode, "allow_process_executor" in wrong.stderr) == (2, True)
        finally:
            await agent.clear_up()
            await coordinator.stop()

    flags = ["--executor", "process", "--allow-process-executor", "--price", "1", "--simulated-gpus", "1"]
    asyncio.run(story())


def test_the_printed_settings_are_the_defaults():
    assert parse(EXAMPLE) == Settings()
