"""The money side: statement, costs, earnings."""

from typing import TYPE_CHECKING

import click

from cli.books import CostsBy, EarningsBy, Period, Purse
from cli.errors import WrongUse
from cli.parse import parse_month
from cli.session import Session, Typed, market_command

if TYPE_CHECKING:
    from cli.client.market import Market
    from cli.reports import Costs, Earnings

MONTH = Typed("MONTH", parse_month)
month_option = click.option(
    "--month", type=MONTH, default=None, help="A month of UTC like 2026-11, or this, or last [this]."
)
all_option = click.option("--all", "whole", is_flag=True, help="From the beginning, not of one month.")
csv_option = click.option("--csv", "as_csv", is_flag=True, help="As CSV, for a spreadsheet.")


@click.command()
@month_option
@all_option
@click.option("--earnings", is_flag=True, help="Of what your hosts earn, not of your wallet.")
@csv_option
@market_command
def statement(session: Session, month: str | None, whole: bool, earnings: bool, as_csv: bool) -> None:
    """Show every movement of your wallet, or of your earnings, with the balance after each."""
    from cli.reports import statement_csv, statement_screen

    period, purse = _period(session, month, whole, as_csv), Purse.EARNINGS if earnings else Purse.WALLET
    found = session.ask(lambda market: market.books.statement(purse, period))
    session.answer(
        lambda: statement_csv(found.movements) if as_csv else statement_screen(found),
        purse=purse,
        period=period,
        statement=found,
    )


@click.command()
@click.option(
    "--by",
    type=click.Choice([str(by) for by in CostsBy]),
    default="job",
    help="Add up by job, label, day or month of submission [job].",
)
@click.option("--label", default="", help="With --by label: by the values of this one.")
@month_option
@all_option
@csv_option
@market_command
def costs(session: Session, by: str, label: str, month: str | None, whole: bool, as_csv: bool) -> None:
    """Show what your jobs have cost. A job counts when it was taken in, with all that came of it."""
    from cli.reports import add_costs, costs_csv, costs_screen

    if label and by != CostsBy.LABEL:
        raise WrongUse("--label goes with --by label")
    period = _period(session, month, whole, as_csv)

    async def add_up(market: "Market") -> "Costs":
        return add_costs([job async for job in market.books.costs(period)], CostsBy(by), label)

    found, heading = session.ask(add_up), label or by
    session.answer(
        lambda: costs_csv(found, heading) if as_csv else costs_screen(found, heading.upper()),
        by=by,
        period=period,
        costs=found,
    )


@click.command()
@click.option(
    "--by",
    type=click.Choice([str(by) for by in EarningsBy]),
    default="host",
    help="Add up by attempt, host, GPU model, day or month [host].",
)
@month_option
@all_option
@csv_option
@market_command
def earnings(session: Session, by: str, month: str | None, whole: bool, as_csv: bool) -> None:
    """Show what your hosts have earned. An attempt counts when it was made, with all that came of it."""
    from cli.reports import add_earnings, earnings_csv, earnings_screen

    period = _period(session, month, whole, as_csv)

    async def add_up(market: "Market") -> "Earnings":
        return add_earnings([made async for made in market.books.earnings(period)], EarningsBy(by))

    found = session.ask(add_up)
    session.answer(
        lambda: earnings_csv(found, by) if as_csv else earnings_screen(found, by.upper()),
        by=by,
        period=period,
        earnings=found,
    )


def _period(session: Session, month: str | None, whole: bool, as_csv: bool) -> Period:
    from cli.reports import month_period
    from runtime.clock import SystemClock

    if session.as_json and as_csv:
        raise WrongUse("--csv and --json are two forms of the same answer; choose one")
    if whole and month:
        raise WrongUse("--all and --month can't both be; choose one")
    return Period() if whole else month_period(month or "this", SystemClock().wall_ms())
