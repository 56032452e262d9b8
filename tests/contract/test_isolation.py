"""The isolation suite: what a stranger's job tries from inside, on a real engine, and how it ends.

Every attack is tried against the plan as it is, where it must fail, and against the plan without the one line
that is meant to stop it, where it must succeed: a test that could not fail would prove nothing.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from agent.domain.attempt import EndReason, JobOrder, OutputStream
from agent.domain.plan import ContainerPlan, plan
from agent.executor import docker as executing
from agent.executor.ports import RunEnd
from agent.executor.supervisor.counters import Counters
from tests.contract.attacks import GUARDED, UNREACHABLE
from tests.contract.test_executor import collect, docker_executor, end_of
from tests.rig.dockerd import Engine
from tests.rig.images import TINY, python_image, tiny_image
from tests.rig.parts import wait_until
from tests.support.orders import order

pytestmark = [pytest.mark.docker, pytest.mark.slow]

MIB = 1 << 20
HOSTILE = "usance-rig/hostile:1"
_HOSTILE_BUILD = "cp /bin/id /bin/setuid-id; chmod u+s /bin/setuid-id; mkdir -m 1777 /wide /volume"
# Writes so many megabytes into a folder, and takes them away again.
_FILL = 'fill() { head -c "$2"000000 /dev/zero > $1/big; code=$?; rm -f $1/big; return $code; }'


@pytest.fixture
def hostile_image(docker_client: docker.DockerClient) -> str:
    """An image that brings a setuid program, a folder for everybody and a volume."""
    if not docker_client.images.list(HOSTILE):
        tiny_image(docker_client)
        made = docker_client.containers.create(TINY, ["sh", "-c", _HOSTILE_BUILD], network_mode="none")
        made.start()
        assert made.wait()["StatusCode"] == 0
        repository, tag = HOSTILE.split(":")
        made.commit(repository, tag, changes="VOLUME /volume")
        made.remove()
    return HOSTILE


@pytest.fixture
def run(docker_engine: Engine, docker_client: docker.DockerClient, tmp_path: Path):
    """Runs a job to its end: what it wrote, and how it ended."""
    numbers = iter(range(1_000))

    def run_job(job: JobOrder) -> tuple[str, RunEnd]:
        executor = docker_executor(docker_engine, tmp_path / str(next(numbers)))

        async def whole() -> tuple[str, RunEnd]:
            try:
                await executor.prepare(job, lambda _: None)
                await executor.start(job, 600_000)
                found = await collect(executor, job)
                return found[OutputStream.STDOUT].decode(), await end_of(executor, job)
            finally:
                await executor.destroy(job.key)
                await executor.close()

        outcome = asyncio.run(whole())
        assert docker_client.api.containers(all=True) == []
        assert docker_client.api.volumes()["Volumes"] in (None, [])
        return outcome

    return run_job


@contextmanager
def changed_plan(
    monkeypatch: pytest.MonkeyPatch, mutate: Callable[[ContainerPlan], ContainerPlan]
) -> Iterator[None]:
    """Also past the comparison with the plan, which has tests of its own."""
    with monkeypatch.context() as patch:
        patch.setattr(executing, "differences", lambda *_: [])
        patch.setattr(executing, "plan", lambda *given: mutate(plan(*given)))
        yield


def attacking(*scripts: tuple[str, str]) -> JobOrder:
    """A job that tries them one after the other and names those that got through."""
    facts = {
        "ipc": os.stat("/proc/self/ns/ipc").st_ino,
        "net": os.stat("/proc/self/ns/net").st_ino,
        "agent": os.getpid(),
    }
    lines = [_FILL]
    for name, script in scripts:
        lines.append(f'( {script.format(**facts)} ) >/dev/null 2>&1 && echo "{name}"')
    command = ("sh", "-c", "\n".join([*lines, "echo tried all"]))
    return order(image=HOSTILE, command=command, memory_bytes=256 * MIB)


def test_no_attack_gets_through(hostile_image, run):
    attacks = {name: attack.script for name, attack in GUARDED.items()}
    output, end = run(attacking(*UNREACHABLE.items(), *attacks.items()))
    assert output == "tried all\n"
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 0)


@pytest.mark.parametrize("name", GUARDED)
def test_an_attack_gets_through_without_its_line_of_the_plan(name, hostile_image, run, monkeypatch):
    attack = GUARDED[name]
    assert attack.without is not None
    with changed_plan(monkeypatch, attack.without):
        output, _ = run(attacking((name, attack.script)))
    assert output == f"{name}\ntried all\n"


def test_the_end_says_what_a_job_ran_into(hostile_image, run):
    """Each is contained, and whoever wrote the job learns why it went wrong."""

    def end_of_script(script: str) -> RunEnd:
        job = order(image=HOSTILE, command=("sh", "-c", script), memory_bytes=64 * MIB)
        end: RunEnd = run(job)[1]
        return end

    child = end_of_script("(tail /dev/zero); exit 3")
    assert (child.reason, child.exit_code) == (EndReason.OUT_OF_MEMORY, 3)
    resigned = end_of_script("(tail /dev/zero); exit 0")
    assert (resigned.reason, resigned.exit_code) == (EndReason.EXITED, 0)
    assert "killed for want of memory" in resigned.detail
    processes = end_of_script("n=0; while [ $n -lt 300 ]; do sleep 20 & n=$((n+1)); done")
    assert processes.reason is EndReason.EXITED
    assert processes.exit_code != 0
    assert "it had all the processes and threads it may have" in processes.detail
    filled = end_of_script("head -c 80000000 /dev/zero > /workspace/big")
    assert (filled.reason, filled.exit_code) == (EndReason.EXITED, 1)
    assert filled.detail == "when it ended there was no room left in /workspace"


def test_the_kernels_own_count_of_kills_is_seen_while_the_container_runs(docker_engine, docker_client):
    tiny_image(docker_client)
    made = docker_client.containers.run(
        TINY,
        ["sh", "-c", "sleep 1; tail /dev/zero; sleep 60"],
        detach=True,
        network_mode="none",
        mem_limit="64m",
        memswap_limit="64m",
    )
    counters = Counters(docker_client.api.inspect_container(made.id)["State"]["Pid"])
    assert (counters.oom_kills, counters.forks_refused) == (0, 0)

    def is_killed() -> bool:
        counters.look()
        return counters.oom_kills > 0

    wait_until(is_killed, "the kernel has killed for memory")
    assert counters.oom_kills == 1
    made.remove(force=True)
    counters.look()
    assert counters.alarms() == []
    assert counters.oom_kills == 1


def test_who_kills_everything_kills_only_itself(docker_engine, hostile_image, run):
    _, end = run(order(image=HOSTILE, command=("sh", "-c", "kill -9 -1; kill -9 1; kill -9 $$; sleep 60")))
    assert (end.reason, end.exit_code) == (EndReason.EXITED, 137)
    assert docker_engine.answers()


# System calls that have led out of containers. Each prints its name where the kernel carries it out.
_SYSTEM_CALLS = f"""
import ctypes, os, socket, stat
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, result):
    if result >= 0:
        print(name)
CLONE_NEWUSER, PTRACE_ATTACH = 0x10000000, 16
tried("mount", libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
tried("ptrace", libc.ptrace(PTRACE_ATTACH, {os.getpid()}, None, None))
tried("chroot", libc.chroot(b"/tmp"))
tried("setns", libc.setns(os.open("/proc/1/ns/net", os.O_RDONLY), 0))
tried("bpf", libc.syscall(321, 0, None, 0))
tried("keyctl", libc.syscall(250, 0, -3, 1))
tried("open_by_handle_at", libc.syscall(304, -100, None, 0))
tried("perf_event_open", libc.syscall(298, None, 0, -1, -1, 0))
tried("init_module", libc.syscall(175, None, 0, None))
tried("reboot", libc.reboot(0))
tried("setuid", libc.setuid(0))
for family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW)):
    try:
        socket.socket(family, kind).close()
        print("raw socket")
    except OSError:
        pass
tried("a user namespace", libc.unshare(CLONE_NEWUSER))
print("tried all")
"""


def test_the_kernel_refuses_what_leads_out(docker_client, run, monkeypatch):
    job = order(image=python_image(docker_client), command=("python3", "-c", _SYSTEM_CALLS))
    assert run(job)[0] == "tried all\n"
    with changed_plan(monkeypatch, _without_filter_of_system_calls):
        assert "a user namespace\n" in run(job)[0]


def _without_filter_of_system_calls(whole: ContainerPlan) -> ContainerPlan:
    return replace(whole, security_options=(*whole.security_options, "seccomp=unconfined"))
