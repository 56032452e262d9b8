"""What is to be had: offers, quote."""

import sys
from typing import TYPE_CHECKING

import click

from cli.commands.asked import TEXT, host_options
from cli.commands.wanted import CREDITS, DURATION, GPU, ISOLATION, NETWORK, SIZE, job_options
from cli.exits import Exit
from cli.model import Isolation, JobSpec, Offer, OfferFilter, Quote
from cli.session import Session, market_command
from cli.wishes import GpuRequest, HostRequest, Network, OfferOrder

if TYPE_CHECKING:
    from cli.client.market import Market
    from cli.render import Part


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
    answer, offers = look_around(session, spec)
    session.answer(lambda: plan_screen(spec, answer, offers), spec=spec, quote=answer, offers=offers)
    return Exit.OK if answer.offer else Exit.NO_MATCH


def look_around(session: Session, spec: JobSpec) -> tuple[Quote, list[Offer]]:
    """What the market would do with a job, and the offers that it could go to."""

    async def ask(market: "Market") -> tuple[Quote, list[Offer]]:
        return await market.quote_job(spec), await market.list_offers(_offers_for(spec))

    return session.ask(ask)


def _offers_for(spec: JobSpec) -> OfferFilter:
    """Which offers a job could be placed on, the cheapest first."""
    return OfferFilter(
        gpus=spec.gpus,
        isolation_min=spec.isolation_min,
        gpu_hour_price_micro_max=spec.gpu_hour_price_micro_max,
        host=spec.host,
        order=OfferOrder.PRICE,
        network_min=spec.network,
        image=spec.image,
        run_ms=spec.run_ms_max,
    )


def plan_screen(spec: JobSpec, quote: Quote, offers: list[Offer]) -> "list[Part]":
    """What the buyer is about to agree to."""
    from cli.overviews import considered_screen
    from cli.screens import quote_screen

    return [*considered_screen(offers, quote.offer), *quote_screen(spec, quote)]
