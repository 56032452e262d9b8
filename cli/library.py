"""Usance from Python: `connect` for programs with an event loop, `connect_sync` for those without.

Both find the coordinator as the command line does: by the profile of `usance login`, or the environment. A
refusal is `cli.errors.Refused` with a stable code; no answer is `cli.errors.Unreachable`. What `job` makes
can be submitted; docs/python.md has examples.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager

from cli.client.calls import Patience
from cli.client.market import Market, open_market
from cli.client.sync import SyncMarket, open_sync_market
from cli.errors import WrongUse
from cli.model import Isolation, JobSpec
from cli.parse import (
    name_from_command,
    parse_credits,
    parse_destination,
    parse_duration,
    parse_gpu,
    parse_size,
)
from cli.profile import Options, load
from cli.wishes import Confidential, GpuRequest, Network, OnHostLoss


def connect(
    environment: Mapping[str, str] = os.environ, *, patience: Patience | None = None
) -> AbstractAsyncContextManager[Market]:
    """`async with connect() as market:`"""
    return open_market(load(Options(), environment), patience=patience)


def connect_sync(
    environment: Mapping[str, str] = os.environ, *, patience: Patience | None = None
) -> AbstractContextManager[SyncMarket]:
    """`with connect_sync() as market:`"""
    return open_sync_market(load(Options(), environment), patience=patience)


def job(  # noqa: PLR0913 - each is a different wish, and all but the command are keywords
    command: Sequence[str],
    *,
    budget: str,
    image: str = "",
    gpu: str = "any",
    vram: str = "",
    env: Mapping[str, str] | None = None,
    max_price: str = "",
    max_time: str = "",
    retries: int = 0,
    on_host_loss: OnHostLoss = OnHostLoss.WAIT,
    network: Network = Network.NONE,
    reach: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    name: str = "",
    simulated: bool = False,
    secrets: Mapping[str, bytes] | None = None,
    registry_login: tuple[str, str] | None = None,
) -> JobSpec:
    """A job as on the command line: `budget="0.25"`, `gpu="rtx4090:2"`, `vram="24GB"`, `max_time="2h"`.

    Each of `secrets` is a file of that name in /run/secrets of the container; `registry_login` is a user and
    a password for the image's registry. Nobody else sees them, and nothing tells them back.

    Without an image it is for hosts that trust you to run plain processes. `reach` names what a container may
    reach of the network, and nothing else, like `["example.org:443"]`. For wishes that have no word here, use
    `dataclasses.replace` on what this makes. Raises WrongUse.
    """
    if not command:
        raise WrongUse("a job needs a command, like ['python', 'train.py']")
    if reach and network is Network.INTERNET:
        raise WrongUse("reach names all that may be reached; leave out network=INTERNET, or reach")
    if network is Network.ALLOW_LIST and not reach:
        raise WrongUse("network=ALLOW_LIST needs a list: name what may be reached in reach")
    try:
        wanted = parse_gpu(gpu)
        return JobSpec(
            name=name or name_from_command(tuple(command)),
            image=image,
            command=tuple(command),
            env=tuple(sorted((env or {}).items())),
            gpus=GpuRequest(
                count=wanted.count,
                model=wanted.model,
                vram_bytes_min=parse_size(vram) if vram else 0,
                simulated=simulated,
            ),
            isolation_min=Isolation.CONTAINER if image else Isolation.PROCESS,
            gpu_hour_price_micro_max=parse_credits(max_price) if max_price else 0,
            budget_micro=parse_credits(budget),
            run_ms_max=parse_duration(max_time) if max_time else 0,
            stop_grace_ms=None,
            retries_max=retries,
            on_host_loss=on_host_loss,
            network=Network.ALLOW_LIST if reach else network,
            network_destinations=tuple(map(parse_destination, reach)),
            labels=tuple(sorted((labels or {}).items())),
            confidential=Confidential(
                secrets=tuple(sorted((secrets or {}).items())),
                registry_user=registry_login[0] if registry_login else "",
                registry_password=registry_login[1] if registry_login else "",
            ),
        )
    except ValueError as error:
        raise WrongUse(str(error)) from error
