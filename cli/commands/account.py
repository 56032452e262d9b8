"""Who we are: login, whoami, wallet."""

import os
import sys
from pathlib import Path

import click

from cli.session import Session, market_command


@click.command()
@market_command
def login(session: Session) -> None:
    """Check a token and keep it, with the coordinator's address, in the profile file.

    Give --server and --ca; the token is asked for, or read from standard input.
    """
    from cli.errors import WrongUse
    from cli.profile import Profile, load, profile_path, save

    environment = dict(os.environ)
    if session.options.token_file is None:
        hidden = sys.stdin.isatty()
        token = click.prompt("token", hide_input=True, err=True) if hidden else sys.stdin.readline()
        if not token.strip():
            raise WrongUse("no token on standard input; the operator makes one by: usance admin token NAME")
        environment["USANCE_TOKEN"] = token.strip()
    profile: Profile = load(session.options, environment)
    account = session.ask(lambda market: market.get_self(), environment)
    path: Path = profile_path(os.environ)
    save(path, profile)
    session.answer(
        lambda: [f"signed in as {account.name}; kept in {path}"], account=account, profile=str(path)
    )


@click.command()
@market_command
def whoami(session: Session) -> None:
    """Show the account that the token belongs to."""
    from cli.render import safe, words
    from cli.screens import facts

    account = session.ask(lambda market: market.get_self())
    session.answer(
        lambda: facts(
            [
                ("account", f"{safe(account.name)} ({account.account_id})"),
                ("roles", ", ".join(words(role) for role in account.roles)),
            ]
        ),
        account=account,
    )


@click.command()
@market_command
def wallet(session: Session) -> None:
    """Show your balances."""
    from cli.render import in_credits
    from cli.screens import facts

    balances = session.ask(lambda market: market.get_wallet())
    session.answer(
        lambda: facts(
            [
                ("wallet", f"{in_credits(balances.wallet_micro)}, free to use"),
                ("held", f"{in_credits(balances.held_micro)}, for jobs that have not ended"),
                ("earnings", f"{in_credits(balances.earnings_micro)}, from your hosts"),
            ]
        ),
        wallet=balances,
    )
