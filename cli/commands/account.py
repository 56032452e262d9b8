"""Who we are: login, logout, whoami, wallet."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.profile import Options
from cli.session import Session, market_command

if TYPE_CHECKING:
    from cli.client.market import Market

_OVERRIDES = {"USANCE_SERVER", "USANCE_TOKEN", "USANCE_CA"}


@click.command()
@market_command
def login(session: Session) -> None:
    """Check a token and keep it, with the coordinator's address, in the profile file.

    Give --server and --ca; the token is asked for, or read from standard input.
    """
    from cli.errors import WrongUse
    from cli.profile import load, profile_path, save

    environment = dict(os.environ)
    if session.options.token_file is None:
        hidden = sys.stdin.isatty()
        token = click.prompt("token", hide_input=True, err=True) if hidden else sys.stdin.readline()
        if not token.strip():
            raise WrongUse("no token on standard input; the operator makes one by: usance admin token NAME")
        environment["USANCE_TOKEN"] = token.strip()
    connection = load(session.options, environment)
    account = session.ask(lambda market: market.get_self(), environment)
    path: Path = profile_path(os.environ)
    save(path, connection)
    session.answer(
        lambda: [f"signed in as {account.name}; kept in {path}"], account=account, profile=str(path)
    )


@click.command()
@click.option("--revoke", is_flag=True, help="Also have the token refused from now on, wherever it is.")
@market_command
def logout(session: Session, revoke: bool) -> None:
    """Forget the profile that `usance login` wrote: coordinator, token and all."""
    from cli.errors import WrongUse
    from cli.profile import profile_path
    from runtime.ids import new_uuid

    path = profile_path(os.environ)
    if not path.exists():
        raise WrongUse(f"there is no profile to forget: {path} does not exist")
    revoked = ""
    if revoke:
        request_id = str(new_uuid())

        async def end_token(market: "Market") -> str:
            used = [token.token_id for token in await market.tokens.list_all() if token.current]
            return (await market.tokens.revoke(used[0], request_id)).token_id

        # What the environment names is not what is to be forgotten.
        revoked = Session(options=Options(), as_json=session.as_json).ask(
            end_token, {name: value for name, value in os.environ.items() if name not in _OVERRIDES}
        )
    path.unlink()
    done = f"; {revoked} is refused from now on" if revoked else ""
    session.answer(lambda: [f"signed out: {path} is gone{done}"], profile=str(path), revoked=revoked)


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
