"""What is to be had: offers, quote."""

import sys

import click

from cli.commands.wanted import CREDITS, GPU, ISOLATION, SIZE, job_options
from cli.exits import Exit
from cli.model import GpuRequest, Isolation, JobSpec, OfferFilter
from cli.session import Session, market_command


@click.command()
@click.option("--gpu", type=GPU, default=None, help="GPU model and least free count, like rtx4090:2.")
@click.option("--vram", type=SIZE, default=0, help="At least this much memory on each GPU, like 24GB.")
@click.option("--max-price", type=CREDITS, default=0, help="The most for one GPU for one hour.")
@click.option("--isolation", type=ISOLATION, default=None, help="The weakest isolation to show.")
@market_command
def offers(
    session: Session, gpu: GpuRequest | None, vram: int, max_price: int, isolation: str | None
) -> None:
    """Show what is to be had now, cheapest first."""
    from cli.screens import offers_screen

    wanted = OfferFilter(
        gpus=GpuRequest(count=gpu.count if gpu else 0, model=gpu.model if gpu else "", vram_bytes_min=vram),
        isolation_min=Isolation(isolation.upper()) if isolation else Isolation.UNSPECIFIED,
        gpu_hour_price_micro_max=max_price,
    )
    found = session.ask(lambda market: market.list_offers(wanted))
    session.answer(lambda: offers_screen(found), offers=found)


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
