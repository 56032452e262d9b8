"""What a stranger's job may try from inside, as shell snippets that succeed where the attack does.

`without` takes one protection out of the plan: then the same snippet must get through. It is how the suite
knows that the snippet would notice.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.domain.plan import ContainerPlan, Limit

Mutation = Callable[[ContainerPlan], ContainerPlan]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """`{…}` in a script stands for a fact of the host that only the test knows."""

    script: str
    without: Mutation | None = None


def _tmpfs(path: str, option: str, instead: str) -> Mutation:
    """With another than one of the options of what is mounted there. (The engine has defaults of its own.)"""

    def mutate(plan: ContainerPlan) -> ContainerPlan:
        options = [instead if each.startswith(option) else each for each in plan.tmpfs[path].split(",")]
        return replace(plan, tmpfs={**plan.tmpfs, path: ",".join(options)})

    return mutate


def _no_tmpfs(path: str) -> Mutation:
    return lambda plan: replace(plan, tmpfs={p: o for p, o in plan.tmpfs.items() if p != path})


def _limit(name: str) -> Mutation:
    """With a limit that is none."""
    return lambda plan: replace(
        plan, limits=(*(limit for limit in plan.limits if limit.name != name), Limit(name=name, value=4_096))
    )


# Each needs its own plan line. The image is `hostile_image` of test_isolation.py.
GUARDED = {
    "capabilities": Attack(
        script="grep CapBnd /proc/self/status | grep -qv 0000000000000000",
        without=lambda plan: replace(plan, cap_drop=()),
    ),
    "setuid program": Attack(
        script='[ "$(/bin/setuid-id -u)" = 0 ]', without=lambda plan: replace(plan, security_options=())
    ),
    "being root": Attack(script='[ "$(id -u)" = 0 ]', without=lambda plan: replace(plan, user="0:0")),
    "writing the root": Attack(
        script="touch /wide/mine", without=lambda plan: replace(plan, read_only=False)
    ),
    "filling a volume": Attack(script="fill /volume 80", without=_no_tmpfs("/volume")),
    "filling the workspace": Attack(
        script="fill /workspace 80", without=_tmpfs("/workspace", "size=", "size=1g")
    ),
    "filling /tmp": Attack(script="fill /tmp 80", without=_tmpfs("/tmp", "size=", "size=1g")),
    "filling shared memory": Attack(
        script="fill /dev/shm 140", without=lambda plan: replace(plan, shm_bytes=200 << 20)
    ),
    "taking all memory": Attack(
        script="dd if=/dev/zero of=/dev/null bs=300M count=1",
        without=lambda plan: replace(plan, memory_bytes=1 << 30, memory_swap_bytes=1 << 30),
    ),
    "setuid in the workspace": Attack(
        script="grep ' /workspace ' /proc/mounts | grep -qv nosuid",
        without=_tmpfs("/workspace", "nosuid", "suid"),
    ),
    "devices in the workspace": Attack(
        script="grep ' /workspace ' /proc/mounts | grep -qv nodev",
        without=_tmpfs("/workspace", "nodev", "dev"),
    ),
    "opening too many files": Attack(script='[ "$(ulimit -Hn)" -gt 1024 ]', without=_limit("nofile")),
    "dumping a core": Attack(script='[ "$(ulimit -Hc)" != 0 ]', without=_limit("core")),
    "outliving the host's own programs": Attack(
        script='[ "$(cat /proc/self/oom_score_adj)" -lt 500 ]',
        without=lambda plan: replace(plan, oom_score_adj=0),
    ),
    "taking all processors": Attack(
        script="grep -qsx -e -1 -e 'max .*' /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max",
        without=lambda plan: replace(plan, nano_cpus=0),
    ),
    "others' shared memory": Attack(
        script='[ "$(stat -Lc %i /proc/self/ns/ipc)" = {ipc} ]',
        without=lambda plan: replace(plan, ipc_mode="host"),
    ),
    "the host's network": Attack(
        script='[ "$(stat -Lc %i /proc/self/ns/net)" = {net} ]',
        without=lambda plan: replace(plan, network_mode="host"),
    ),
    "no reaper of zombies": Attack(
        script='[ "$(cat /proc/1/comm)" != docker-init ]', without=lambda plan: replace(plan, init=False)
    ),
    "starting endless processes": Attack(
        # The shell ends with an error as soon as it may not start another. The last of all: they stay.
        script="n=0; while [ $n -lt 300 ]; do sleep 20 & n=$((n+1)); done",
        without=lambda plan: replace(plan, pids_max=2_000),
    ),
}

# No line of the plan opens these, because none can say so: what would is compared after the creation.
UNREACHABLE = {
    "a GPU's node": "mknod /tmp/gpu c 195 0",
    "a disk's node": "mknod /workspace/disk b 8 0",
    "the engine's socket": "find / -xdev -name docker.sock | grep -q .",
    "the host's processes": "grep -l -e dockerd -e containerd /proc/[0-9]*/comm | grep -q .",
    "killing the agent": "kill -9 {agent}",
    "the agent's memory": "head -c 1 /proc/{agent}/mem",
    "the host's files through a process": "ls /proc/1/root/home /proc/1/cwd/.git",
    "core_pattern": "echo '|/bin/sh' > /proc/sys/kernel/core_pattern",
    "the host's name": "echo mine > /proc/sys/kernel/hostname",
    "sysrq": "echo b > /proc/sysrq-trigger",
    "its own cgroup": "echo 'a *:* rwm' > /sys/fs/cgroup/devices/devices.allow",
    "a new cgroup": "mkdir /sys/fs/cgroup/mine || mkdir /sys/fs/cgroup/memory/mine",
    "a release agent": "echo /bin/sh > /sys/fs/cgroup/memory/release_agent",
    "the kernel's modules": "echo 1 > /sys/module/kernel/parameters/panic",
    "the kernel's memory": "head -c 1 /proc/kcore | grep -q . || head -c 1 /dev/mem",
    "other firmware": "ls /sys/firmware/* | grep -q .",
}
