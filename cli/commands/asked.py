"""The options that say what is asked of a host, shared by `offers`, `quote` and `run`."""

from collections.abc import Callable
from functools import wraps

import click

from cli.parse import parse_label, parse_reliability, parse_text, parse_version
from cli.session import Typed
from cli.wishes import HostRequest

LABEL = Typed("NAME=VALUE", parse_label)
TEXT = Typed("TEXT", parse_text)
VERSION = Typed("VERSION", parse_version)
RELIABILITY = Typed("PERCENT", parse_reliability)


def host_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `host`, made of its options, and `compute_capability`."""

    @click.option(
        "--region", "regions", type=TEXT, multiple=True, help="Only hosts in this region; repeatable."
    )
    @click.option("--driver", type=VERSION, default=None, help="At least this driver version, like 550.54.")
    @click.option("--cuda", type=VERSION, default=None, help="At least this CUDA version, like 12.4.")
    @click.option("--cc", type=VERSION, default=None, help="At least this compute capability, like 8.0.")
    @click.option("--reliability", type=RELIABILITY, default=0, help="At least this reliability, like 99%.")
    @click.option("--host-label", "host_labels", type=LABEL, multiple=True, help="A label of the host's.")
    @wraps(command)
    def with_host(
        *positional: object,
        regions: tuple[str, ...],
        driver: str | None,
        cuda: str | None,
        cc: str | None,
        reliability: int,
        host_labels: tuple[tuple[str, str], ...],
        **others: object,
    ) -> None:
        host = HostRequest(
            driver_version_min=driver or "",
            cuda_version_min=cuda or "",
            regions=regions,
            reliability_ppm_min=reliability,
            labels=host_labels,
        )
        command(*positional, host=host, compute_capability=cc or "", **others)

    return with_host
