"""Compares a container with its plan: what the engine made must be what was asked, and nothing besides."""

from collections.abc import Mapping
from typing import Any

from agent.domain.plan import SECRETS, ContainerPlan

# Whatever gives a container more than its plan; all must be unset. None is ever asked for.
_UNSET = (
    "Binds",
    "CapAdd",
    "Devices",
    "DeviceCgroupRules",
    "VolumesFrom",
    "PortBindings",
    "GroupAdd",
    "Sysctls",
    "Links",
    "PidMode",
    "UTSMode",
    "UsernsMode",
    "Privileged",
    "PublishAllPorts",
    "AutoRemove",
    "OomKillDisable",
    "DnsSearch",
    "Cgroup",
)


def differences(plan: ContainerPlan, inspected: Mapping[str, Any]) -> list[str]:
    """In words, what is other than planned; empty where all is right."""
    config, host = inspected["Config"], inspected["HostConfig"]
    wanted: dict[str, tuple[object, object]] = {
        "image": (plan.image, inspected["Image"]),
        "user": (plan.user, config["User"]),
        "working directory": (plan.working_dir, config["WorkingDir"]),
        "command": (list(plan.command), [*(config["Entrypoint"] or ()), *(config["Cmd"] or ())]),
        "health check": (list(plan.healthcheck), (config.get("Healthcheck") or {}).get("Test")),
        "labels": (dict(plan.labels), {k: (config["Labels"] or {}).get(k) for k in plan.labels}),
        "environment": (dict(plan.environment), _environment(config, plan)),
        "runtime": (plan.runtime, host["Runtime"]),
        "network": (plan.network_mode, host["NetworkMode"]),
        "networks": ([plan.network_mode], list(inspected["NetworkSettings"]["Networks"])),
        "name servers": (list(plan.dns), host["Dns"] or []),
        "resolver's options": (list(plan.dns_options), host["DnsOptions"] or []),
        "extra hosts": (list(plan.extra_hosts), host["ExtraHosts"] or []),
        "dropped capabilities": (list(plan.cap_drop), host["CapDrop"]),
        "security options": (list(plan.security_options), host["SecurityOpt"]),
        "read-only root": (plan.read_only, host["ReadonlyRootfs"]),
        "tmpfs": (dict(plan.tmpfs), host.get("Tmpfs")),
        "memory": (plan.memory_bytes, host["Memory"]),
        "memory and swap": (plan.memory_swap_bytes, host["MemorySwap"]),
        "processors": (plan.nano_cpus, host["NanoCpus"]),
        "processes": (plan.pids_max, host["PidsLimit"]),
        "shared memory": (plan.shm_bytes, host["ShmSize"]),
        "limits": (
            {limit.name: (limit.value, limit.value) for limit in plan.limits},
            {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in host["Ulimits"] or ()},
        ),
        "OOM score": (plan.oom_score_adj, host["OomScoreAdj"]),
        "init": (plan.init, host.get("Init")),
        "IPC": (plan.ipc_mode, host["IpcMode"]),
        "log driver": (plan.log_driver, host["LogConfig"]["Type"]),
        "GPUs": (_gpus(plan), _gpu_requests(host)),
        "secrets": (_secrets(plan), _bound(inspected)),
        "restart policy": (True, host["RestartPolicy"]["Name"] in ("", "no")),
    }
    found = [
        f"{name}: {actual!r} instead of {right!r}"
        for name, (right, actual) in wanted.items()
        if right != actual
    ]
    found += [f"{name} is set: {host[name]!r}" for name in _UNSET if host.get(name)]
    found += [
        f"a mount of type {mount['Type']} at {mount['Destination']}"
        for mount in inspected.get("Mounts") or ()
        if mount["Type"] not in ("tmpfs", "bind")
    ]
    return found


def _secrets(plan: ContainerPlan) -> list[object]:
    return [(plan.secrets, SECRETS, False)] if plan.secrets else []


def _bound(inspected: Mapping[str, Any]) -> list[object]:
    """Everything of the host's that is in the container: whence, where, and whether it can be written."""
    return [
        (mount["Source"], mount["Destination"], mount["RW"])
        for mount in inspected.get("Mounts") or ()
        if mount["Type"] == "bind"
    ]


def _environment(config: Mapping[str, Any], plan: ContainerPlan) -> dict[str, str]:
    """What the command finds of the names that we set; the image's other names are its own."""
    values = dict(entry.partition("=")[::2] for entry in config["Env"] or ())
    return {name: values[name] for name in plan.environment if name in values}


def _gpus(plan: ContainerPlan) -> list[object]:
    if plan.gpus is None:
        return []
    capabilities = [list(plan.gpus.capabilities)] if plan.gpus.capabilities else []
    return [(plan.gpus.driver, list(plan.gpus.device_ids), capabilities, 0, {})]


def _gpu_requests(host: Mapping[str, Any]) -> list[object]:
    return [
        (
            request["Driver"],
            request["DeviceIDs"],
            request["Capabilities"] or [],
            request["Count"],
            request["Options"] or {},
        )
        for request in host.get("DeviceRequests") or ()
    ]
