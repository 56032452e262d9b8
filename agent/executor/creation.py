"""A container's plan in the words of the engine's client."""

from typing import Any

import docker
import docker.types

from agent.domain.plan import SECRETS, ContainerPlan


def create_arguments(api: docker.APIClient, wanted: ContainerPlan) -> dict[str, Any]:
    gpus = []
    if wanted.gpus is not None:
        capabilities = [list(wanted.gpus.capabilities)] if wanted.gpus.capabilities else []
        gpus = [
            docker.types.DeviceRequest(
                driver=wanted.gpus.driver,
                device_ids=list(wanted.gpus.device_ids),
                capabilities=capabilities,
            )
        ]
    host_config = api.create_host_config(
        runtime=wanted.runtime,
        network_mode=wanted.network_mode,
        dns=list(wanted.dns),
        dns_opt=list(wanted.dns_options),
        extra_hosts=list(wanted.extra_hosts),
        cap_drop=list(wanted.cap_drop),
        security_opt=list(wanted.security_options),
        read_only=wanted.read_only,
        tmpfs=dict(wanted.tmpfs),
        mem_limit=wanted.memory_bytes,
        memswap_limit=wanted.memory_swap_bytes,
        nano_cpus=wanted.nano_cpus,
        pids_limit=wanted.pids_max,
        shm_size=wanted.shm_bytes,
        ulimits=[
            docker.types.Ulimit(name=limit.name, soft=limit.value, hard=limit.value)
            for limit in wanted.limits
        ],
        oom_score_adj=wanted.oom_score_adj,
        init=wanted.init,
        ipc_mode=wanted.ipc_mode,
        log_config=docker.types.LogConfig(type=wanted.log_driver),
        device_requests=gpus,
        mounts=[docker.types.Mount(SECRETS, wanted.secrets, type="bind", read_only=True)]
        if wanted.secrets
        else None,
    )
    return {
        "image": wanted.image,
        "name": wanted.name,
        # The image's own entry point has no say: the order names the program.
        "entrypoint": [wanted.command[0]],
        "command": list(wanted.command[1:]),
        "environment": dict(wanted.environment),
        "labels": dict(wanted.labels),
        "user": wanted.user,
        "working_dir": wanted.working_dir,
        "healthcheck": {"test": list(wanted.healthcheck)},
        "host_config": host_config,
    }
