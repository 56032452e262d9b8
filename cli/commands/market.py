"""What is to be had: offers, quote."""

import sys
from typing import TYPE_CHECKING

import click

from cli.commands.asked import TEXT, host_options
from cli.commands.wanted import CREDITS, DURATION, GPU, ISOLATION, NETWORK, SIZE, job_options
from cli.exits import Exit
from cli.model import Isolation, JobSpec, OfferFilter
from cli.session import Session, market_command
from cli.wishes import GpuRequest, HostRequest, Network, OfferOrder

if TYPE_CHECKING:
    from cli.client.market import Market


@click.command()
@click.option("--gpu", type=GPU, default=None, help="GPU model and least free count, like rtx4090:2.")
@click.option("--vram", type=SIZE, default=0, help="At least this much memory on each GPU, like 24GB.")
@click.option("--max-price", type=CREDITS, default=0, help="The most for one GPU for one hour.")
@click.option("--simulated", is_flag=True, help="Show simulated GPUs of that model too.")
@click.option("--image", type=TEXT, default="", help="Only hosts whose seller takes this image.")
@click.option("--network", type=NETWORK, default="none", help="What a job must be let reach [none].")
@click.option("--max-time", type=DURATION, default=0, help="Only hosts that take a job as long as this now.")
@click.option("--isolation", type=ISOLATION, default=None, help="The weakest isolation to show.")
@host_options
@click.option(
    "--sort",
    type=click.Choice(["price", "reliability", "vram", "count"]),
    default="price",
    help="Cheapest, most reliable, most memory or most free GPUs first [price].",
)
@click.option("--watch", is_flag=True, help="Show them again whenever they change, until Ctrl-C.")
@market_command
def offers(  # noqa: PLR0913, PLR0917 -- click hands each option over by its name
    session: Session,
    gpu: GpuRequest | None,
    vram: int,
    max_price: int,
    isolation: str | None,
    host: HostRequest,
    compute_capability: str,
    sort: str,
    watch: bool,
    simulated: bool,
    image: str,
    network: str,
    max_time: int,
) -> None:
    """Show what is to be had now."""
    from cli.screens import offers_screen

    wanted = OfferFilter(
        gpus=GpuRequest(
            count=gpu.count if gpu else 0,
            model=gpu.model if gpu else "",
            vram_bytes_min=vram,
            compute_capability_min=compute_capability,
            simulated=simulated,
        ),
        isolation_min=Isolation(isolation.upper()) if isolation else Isolation.UNSPECIFIED,
        gpu_hour_price_micro_max=max_price,
        host=host,
        order=OfferOrder(sort.upper()),
        network_min=Network(network.upper()),
        image=image,
        run_ms=max_time,
    )
    if not watch:
        found = session.ask(lambda market: market.list_offers(wanted))
        session.answer(lambda: offers_screen(found), offers=found)
        return

    async def show_each(market: "Market") -> None:
        async for now in market.watch_offers(wanted):
            session.answer(lambda: [*offers_screen(now), ""], offers=now)  # noqa: B023 -- used at once

    session.ask(show_each)


@click.command(context_settings={"allow_interspersed_args": False})
@job_options
@market_command
def quote(session: Session, spec: JobSpec) -> None:
    """Say what a job would cost and where it would run now. Holds nothing, changes nothing."""
    sys.exit(show_quote(session, spec))


def show_quote(session: Session, spec: JobSpec) -> Exit:
    """The quote on stdout; the exit code says whether a host fits now."""
    from cli.screens import quote_screen

    answer = session.ask(lambda market: market.quote_job(spec))
    session.answer(lambda: quote_screen(spec, answer), spec=spec, quote=answer)
    return Exit.OK if answer.offer else Exit.NO_MATCH
