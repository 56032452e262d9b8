"""The options that say what a job is and on what terms, shared by `run` and `quote`."""

from collections.abc import Callable
from functools import wraps

import click

from cli.commands.asked import LABEL, TEXT, host_options
from cli.commands.confidential import confidential_options
from cli.errors import WrongUse
from cli.model import Isolation, JobSpec
from cli.parse import (
    name_from_command,
    parse_credits,
    parse_destination,
    parse_duration,
    parse_env,
    parse_gpu,
    parse_processors,
    parse_size,
)
from cli.session import Typed
from cli.wishes import Confidential, GpuRequest, HostRequest, Network, OnHostLoss, Policy

CREDITS = Typed("CREDITS", parse_credits)
DURATION = Typed("DURATION", parse_duration)
SIZE = Typed("SIZE", parse_size)
GPU = Typed("MODEL[:COUNT]", parse_gpu)
PROCESSORS = Typed("NUMBER", parse_processors)
DESTINATION = Typed("HOST[:PORT]", parse_destination)
ENV = Typed("NAME=VALUE", parse_env)
NETWORK = click.Choice(["none", "internet"])
ISOLATION = click.Choice(["container", "process"])

RETRIES_MAX = 10


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a `spec` made of its options and COMMAND."""

    @click.option("--gpu", type=GPU, default="any", help="GPU model and count, like rtx4090:2 [any:1].")
    @click.option("--simulated", is_flag=True, help="Accept GPUs that do not exist, for trying things out.")
    @click.option("--vram", type=SIZE, default=0, help="At least this much memory on each GPU, like 24GB.")
    @click.option("--memory", type=SIZE, default=0, help="Main memory, like 32GB [the host's share].")
    @click.option("--cpu", type=PROCESSORS, default=0, help="Processors, like 4 or 1.5 [the host's share].")
    @click.option("--image", type=TEXT, default="", help="Container image; none with --isolation process.")
    @click.option("--env", type=ENV, multiple=True, help="Set a variable for the job; repeatable.")
    @click.option(
        "--isolation",
        type=ISOLATION,
        default="container",
        help="The weakest isolation you accept; 'process' is none, on hosts that trust you [container].",
    )
    @click.option(
        "--network",
        type=NETWORK,
        default="none",
        help="What a container may reach: nothing, or the public internet [none].",
    )
    @click.option(
        "--reach",
        "destinations",
        type=DESTINATION,
        multiple=True,
        help="Let a container reach this and nothing else, like example.org:443; repeatable.",
    )
    @click.option("--max-price", type=CREDITS, default=0, help="The most for one GPU for one hour.")
    @click.option("--budget", type=CREDITS, required=True, help="The most the job may cost; held at submit.")
    @click.option("--max-time", type=DURATION, default=0, help="Longest run, like 2h or 1h30m [1d].")
    @click.option("--max-wait", type=DURATION, default=0, help="Longest wait for a host [no limit].")
    @click.option("--grace", type=DURATION, default=None, help="Time between stop signal and kill [10s].")
    @click.option(
        "--retries",
        type=click.IntRange(0, RETRIES_MAX),
        default=0,
        help="How often to place the job anew when a host is lost [0].",
    )
    @click.option(
        "--policy",
        type=click.Choice(["balanced", "cheapest", "fastest-start", "most-reliable"]),
        default="balanced",
        help="Which of the hosts that fit gets the job [balanced].",
    )
    @click.option(
        "--priority", type=click.IntRange(1, 100), default=50, help="More is sooner, 1 to 100 [50]."
    )
    @click.option(
        "--on-host-loss",
        type=click.Choice(["wait", "replace", "fail"]),
        default="wait",
        help="When the host falls silent: wait for it, take another at once (a retry), or fail [wait].",
    )
    @click.option("--label", "labels", type=LABEL, multiple=True, help="For your own books; repeatable.")
    @click.option("--note", type=TEXT, default="", help="A note for people.")
    @confidential_options
    @host_options
    @click.option("--name", type=TEXT, default="", help="A name for people [the program's].")
    @click.argument("command", nargs=-1, required=True, type=TEXT)
    @wraps(command)
    def with_spec(  # noqa: PLR0913 -- click hands each option over by its name
        *positional: object,
        gpu: GpuRequest,
        vram: int,
        memory: int,
        cpu: int,
        image: str,
        env: tuple[tuple[str, str], ...],
        isolation: str,
        max_price: int,
        budget: int,
        max_time: int,
        max_wait: int,
        grace: int | None,
        retries: int,
        name: str,
        policy: str,
        priority: int,
        on_host_loss: str,
        labels: tuple[tuple[str, str], ...],
        note: str,
        host: HostRequest,
        compute_capability: str,
        network: str,
        destinations: tuple[str, ...],
        simulated: bool,
        confidential: Confidential,
        **others: object,
    ) -> None:
        words = tuple(str(word) for word in others.pop("command"))  # type: ignore[attr-defined]
        isolation_min = Isolation(isolation.upper())
        if isolation_min is Isolation.CONTAINER and not image:
            raise WrongUse("a container needs an image: add --image REFERENCE, or --isolation process")
        if destinations and network == "internet":
            raise WrongUse("--reach names all that may be reached; leave out --network internet, or --reach")
        if confidential and isolation_min is not Isolation.CONTAINER:
            raise WrongUse("secrets and registries are for containers; leave out --isolation process")
        if budget < 1:
            raise WrongUse("--budget 0 can pay for nothing; give the most the job may cost, like 0.50")
        spec = JobSpec(
            name=name or name_from_command(words),
            image=image,
            command=words,
            env=env,
            gpus=GpuRequest(
                count=gpu.count,
                model=gpu.model,
                vram_bytes_min=vram,
                compute_capability_min=compute_capability,
                simulated=simulated,
            ),
            host=host,
            policy=Policy(policy.upper().replace("-", "_")),
            priority=priority,
            on_host_loss=OnHostLoss(on_host_loss.upper()),
            labels=labels,
            note=note,
            memory_bytes=memory,
            cpu_milli=cpu,
            isolation_min=isolation_min,
            gpu_hour_price_micro_max=max_price,
            budget_micro=budget,
            run_ms_max=max_time,
            stop_grace_ms=grace,
            retries_max=retries,
            queue_ms_max=max_wait,
            network=Network.ALLOW_LIST if destinations else Network(network.upper()),
            network_destinations=destinations,
            confidential=confidential,
        )
        command(*positional, spec=spec, **others)

    return with_spec
