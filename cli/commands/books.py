"""The money side: statement, costs, earnings, budget, price."""

from typing import TYPE_CHECKING

import click

from cli.books import CostsBy, EarningsBy, Period, Purse
from cli.commands.wanted import CREDITS
from cli.errors import WrongUse
from cli.parse import parse_month, parse_percent
from cli.session import Session, Typed, market_command

if TYPE_CHECKING:
    from cli.books import ModelPrice, SpendingCap
    from cli.client.market import Market
    from cli.people import Host
    from cli.reports import Costs, Earnings

MONTH = Typed("MONTH", parse_month)
PERCENT = Typed("PERCENT", parse_percent)
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


@click.command()
@click.option("--cap", type=CREDITS, default=0, help="The most for the jobs of one month of UTC.")
@click.option(
    "--alert", type=PERCENT, default=0, help="From what part of it on you are warned, like 90% [80%]."
)
@click.option("--no-cap", is_flag=True, help="Take the cap away.")
@market_command
def budget(session: Session, cap: int, alert: int, no_cap: bool) -> None:
    """Show your spending cap and what of it is used this month; or set it.

    A job that would go beyond the cap is refused. A job counts when it is taken in: with its whole budget
    while it runs, with what it has cost when it has ended. What runs already goes on.
    """
    from cli.overviews import cap_screen
    from runtime.ids import new_uuid

    if no_cap and (cap or alert):
        raise WrongUse("--no-cap takes the cap away; leave out --cap and --alert, or --no-cap")
    request_id = str(new_uuid())

    async def ask(market: "Market") -> "SpendingCap":
        if not (cap or alert or no_cap):
            return await market.books.get_cap()
        month_micro = cap or (0 if no_cap else (await market.books.get_cap()).month_micro)
        if not (month_micro or no_cap):
            raise WrongUse("there is no cap to warn of; add --cap CREDITS")
        return await market.books.set_cap(month_micro, alert, request_id)

    found = session.ask(ask)
    session.answer(lambda: cap_screen(found), cap=found)


@click.command()
@click.argument("model", required=False, default="")
@market_command
def price(session: Session, model: str) -> None:
    """Show what each GPU model is offered for in the market, and what your own hosts ask.

    MODEL, a part of a name, shows only those. Your own prices are in the terms of your machine's agent.
    """
    from cli.model import Role
    from cli.overviews import prices_screen

    async def ask(market: "Market") -> "tuple[list[ModelPrice], list[Host]]":
        account = await market.get_self()
        own = await market.list_hosts() if Role.SELLER in account.roles else []
        return await market.books.list_prices(), own

    every, own = session.ask(ask)
    found = [each for each in every if model.lower() in each.gpu_model.lower()]
    session.answer(lambda: prices_screen(found, own), prices=found)


def _period(session: Session, month: str | None, whole: bool, as_csv: bool) -> Period:
    from cli.reports import month_period
    from runtime.clock import SystemClock

    if session.as_json and as_csv:
        raise WrongUse("--csv and --json are two forms of the same answer; choose one")
    if whole and month:
        raise WrongUse("--all and --month can't both be; choose one")
    return Period() if whole else month_period(month or "this", SystemClock().wall_ms())
