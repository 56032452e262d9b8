"""The container that a job gets: decided here, whole, and nowhere else.

It is a whitelist. A stranger's code runs in it on somebody's own machine, so nothing that is not written here
can be in a container, and every line has a test that fails without it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from agent.domain.attempt import AttemptKey, JobOrder
from agent.domain.gpu import is_simulated
from agent.domain.images import ImagePolicy
from agent.domain.network import NetworkPlan, NetworkPolicy

JOB_UID = 10_001
WORKSPACE = "/workspace"
SECRETS = "/run/secrets"
MEMORY_BYTES_MIN = 64 << 20
# Above what people use by far, below what hurts a host.
NOFILE_MAX = 65_536
OOM_SCORE_ADJ = 500

LABEL_ATTEMPT = "usance.attempt"
LABEL_EPOCH = "usance.epoch"
LABEL_BOOT = "usance.boot"
LABEL_HOST = "usance.host"

# What an image or a buyer could say to the GPU toolkit's hooks or to the loader, taken back. The engine sets
# the granted GPUs after all of this.
_BLANKED = {
    # Never "none": some toolkits have taken that for all.
    "NVIDIA_VISIBLE_DEVICES": "void",
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    "NVIDIA_DISABLE_REQUIRE": "",
    "NVIDIA_GDRCOPY": "",
    "NVIDIA_GDS": "",
    "NVIDIA_IMEX_CHANNELS": "",
    "NVIDIA_MIG_CONFIG_DEVICES": "",
    "NVIDIA_MIG_MONITOR_DEVICES": "",
    "NVIDIA_MOFED": "",
    "NVIDIA_NVSWITCH": "",
    "DOCKER_RESOURCE_GPU": "",
    "LD_PRELOAD": "",
}
_GPU_CAPABILITIES = ("gpu", "compute", "utility")
_CDI_KIND = "nvidia.com/gpu"


@dataclass(frozen=True, kw_only=True)
class HostPolicy:
    """What the seller and the machine allow a job."""

    host_id: str
    boot_id: str
    cpu_count: int
    memory_bytes: int
    gpu_count: int
    workspace_bytes: int
    tmp_bytes: int
    pids_max: int
    # What the host's own limits leave to give.
    nofile_max: int
    # The most that is kept of a job's output; 0 for all.
    output_bytes_max: int = 0
    network: NetworkPolicy = field(default_factory=NetworkPolicy)
    images: ImagePolicy = field(default_factory=ImagePolicy)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """An upper bound of a process's own, soft and hard alike."""

    name: str
    value: int


@dataclass(frozen=True, kw_only=True)
class GpuRequest:
    """Which GPUs the engine is asked for, by name: a number of them would be the same ones for every job."""

    # "cdi": the engine itself puts the devices into the container. "": the vendor's hook does.
    driver: str
    device_ids: tuple[str, ...]
    capabilities: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ContainerPlan:
    """Everything that is said about a container. What is not a field here is never asked of the engine."""

    name: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    user: str
    working_dir: str
    runtime: str
    network_mode: str
    dns: tuple[str, ...]
    dns_options: tuple[str, ...]
    # Each a name, a colon and its address.
    extra_hosts: tuple[str, ...]
    cap_drop: tuple[str, ...]
    security_options: tuple[str, ...]
    read_only: bool
    # Path -> mount options.
    tmpfs: Mapping[str, str]
    memory_bytes: int
    memory_swap_bytes: int
    nano_cpus: int
    pids_max: int
    shm_bytes: int
    limits: tuple[Limit, ...]
    oom_score_adj: int
    init: bool
    healthcheck: tuple[str, ...]
    ipc_mode: str
    log_driver: str
    gpus: GpuRequest | None
    # The host's folder in memory that is read-only at SECRETS; "" for none. The agent alone makes it.
    secrets: str


def plan(
    order: JobOrder,
    policy: HostPolicy,
    image_volumes: Sequence[str] = (),
    network: NetworkPlan | None = None,
    cdi_devices: Collection[str] = (),
    secrets: str = "",
) -> ContainerPlan:
    """The container of an order on this host. `image_volumes` are the paths that its image declares.

    `network` is the job's own, where it has bought one; `cdi_devices` are those that the engine lists;
    `secrets` is the folder of the job's secrets, where it has any.
    """
    memory_bytes = order.memory_bytes or _memory_share(order, policy)
    simulated = tuple(uuid for uuid in order.gpu_uuids if is_simulated(uuid))
    real = tuple(uuid for uuid in order.gpu_uuids if not is_simulated(uuid))
    # In memory, so that they are limited and gone with the container; the job's memory pays for them.
    workspace = _tmpfs(min(policy.workspace_bytes, memory_bytes // 2))
    scratch = _tmpfs(min(policy.tmp_bytes, memory_bytes // 4))
    return ContainerPlan(
        name=f"usance-{order.key}",
        image=order.image,
        command=order.command,
        environment=_environment(order, simulated),
        labels={**labels_of(order.key, policy.host_id), LABEL_BOOT: policy.boot_id},
        user=f"{JOB_UID}:{JOB_UID}",
        working_dir=WORKSPACE,
        # By name: a host whose default is the GPU vendor's runtime would let the image choose its GPUs.
        runtime="runc",
        # Its own or none at all; a shared bridge would reach others, and the seller's LAN.
        network_mode=network.name if network else "none",
        # The host's resolver is in the seller's LAN, and knows names there.
        dns=network.dns if network else (),
        dns_options=network.dns_options if network else (),
        extra_hosts=tuple(f"{name}:{address}" for name, address in network.hosts) if network else (),
        cap_drop=("ALL",),
        security_options=("no-new-privileges:true",),
        read_only=True,
        # A volume of the image would be disk without a limit, and stay; it becomes memory like the rest.
        tmpfs={
            **{path: scratch for path in image_volumes if not (secrets and path.rstrip("/") == SECRETS)},
            "/tmp": scratch,  # noqa: S108 - inside
            WORKSPACE: workspace,
        },
        memory_bytes=memory_bytes,
        memory_swap_bytes=memory_bytes,
        nano_cpus=(order.cpu_milli or _cpu_milli_share(order, policy)) * 1_000_000,
        pids_max=policy.pids_max,
        shm_bytes=memory_bytes // 2,
        limits=(Limit(name="core", value=0), Limit(name="nofile", value=min(policy.nofile_max, NOFILE_MAX))),
        oom_score_adj=OOM_SCORE_ADJ,
        init=True,
        healthcheck=("NONE",),
        ipc_mode="private",
        # The supervisor takes the output itself; the engine's files would be a second copy without a limit.
        log_driver="none",
        gpus=_gpu_request(real, cdi_devices),
        secrets=secrets,
    )


def _gpu_request(uuids: tuple[str, ...], cdi_devices: Collection[str]) -> GpuRequest | None:
    if not uuids:
        return None
    names = tuple(f"{_CDI_KIND}={uuid}" for uuid in uuids)
    if all(name in cdi_devices for name in names):
        # No variable of the image or the buyer has a say, and runc keeps the device rules.
        return GpuRequest(driver="cdi", device_ids=names, capabilities=())
    return GpuRequest(driver="", device_ids=uuids, capabilities=_GPU_CAPABILITIES)


def labels_of(key: AttemptKey, host_id: str) -> dict[str, str]:
    """By these everything of an attempt is found again."""
    return {LABEL_ATTEMPT: key.attempt_id, LABEL_EPOCH: str(key.epoch), LABEL_HOST: host_id}


def _environment(order: JobOrder, simulated: tuple[str, ...]) -> dict[str, str]:
    """The buyer's, then ours over it."""
    return {
        "HOME": WORKSPACE,
        **order.env,
        **_BLANKED,
        "USANCE_SIMULATED_GPUS": ",".join(simulated),
    }


def _tmpfs(size_bytes: int) -> str:
    # Some versions of runc set the mode to that of the folder below, so the owner has to be the job.
    return f"rw,exec,nosuid,nodev,size={size_bytes},mode=1777,uid={JOB_UID},gid={JOB_UID}"


def _memory_share(order: JobOrder, policy: HostPolicy) -> int:
    """The job's part of nine tenths of the memory, by its part of the GPUs; a tenth is the host's."""
    return max(
        MEMORY_BYTES_MIN, policy.memory_bytes * 9 // 10 * _parts(order, policy) // max(policy.gpu_count, 1)
    )


def _cpu_milli_share(order: JobOrder, policy: HostPolicy) -> int:
    return max(100, policy.cpu_count * 1_000 * _parts(order, policy) // max(policy.gpu_count, 1))


def _parts(order: JobOrder, policy: HostPolicy) -> int:
    return min(max(len(order.gpu_uuids), 1), max(policy.gpu_count, 1))
