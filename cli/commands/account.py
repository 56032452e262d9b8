"""Who we are: login, logout, profile, whoami, wallet."""

import os
import sys
from typing import TYPE_CHECKING

import click

from cli.profile import Options
from cli.session import Session, market_command

if TYPE_CHECKING:
    from pathlib import Path

    from cli.client.market import Market


@click.command()
@market_command
def login(session: Session) -> None:
    """Check a token and keep it, with the coordinator's address, in your profile.

    Give --server and --ca; the token is asked for, or read from standard input. With --profile NAME it is
    kept under that name, beside others.
    """
    from cli.errors import WrongUse
    from cli.profile import check_name, keep, load, profile_file, profile_name, read_profiles
    from cli.render import safe

    path, token = profile_file(os.environ), ""
    name = check_name(profile_name(session.options, os.environ, read_profiles(path)))
    if session.options.token_file is None:
        hidden = sys.stdin.isatty()
        token = click.prompt("token", hide_input=True, err=True) if hidden else sys.stdin.readline()
        if not token.strip():
            raise WrongUse("no token on standard input; the operator makes one by: usance admin token NAME")
    connection = load(session.options, os.environ, fresh=True, token=token.strip())
    account = session.ask(lambda market: market.get_self(), connection)
    keep(path, name, connection)
    session.answer(
        lambda: [f"signed in as {safe(account.name)}; kept as profile {name} in {_short(path)}"],
        account=account,
        profile=name,
        file=str(path),
    )


@click.command()
@click.option("--revoke", is_flag=True, help="Also have the token refused from now on, wherever it is.")
@market_command
def logout(session: Session, revoke: bool) -> None:
    """Forget what `usance login` kept in the profile: coordinator, token and all."""
    from cli.profile import forget, profile_file, profile_name, read_profiles
    from runtime.ids import new_uuid

    path = profile_file(os.environ)
    name = profile_name(session.options, os.environ, read_profiles(path))
    revoked = ""
    if revoke:
        request_id = str(new_uuid())

        async def end_token(market: "Market") -> str:
            used = [token.token_id for token in await market.tokens.list_all() if token.current]
            return (await market.tokens.revoke(used[0], request_id)).token_id

        # What the environment names is not what is to be forgotten.
        revoked = Session(options=Options(profile=name), as_json=session.as_json).ask(end_token)
    left = forget(path, name)
    lines = [f"signed out: profile {name} is gone from {_short(path)}"]
    lines += [f"{revoked} is refused from now on"] if revoked else []
    lines += [f"the profile that counts now is {left.current}"] if left.by_name else []
    session.answer(lambda: lines, profile=name, file=str(path), revoked=revoked)


@click.group()
def profile() -> None:
    """Show your profiles, and choose the one that counts where none is named."""


@profile.command("list")
@market_command
def list_(session: Session) -> None:
    """Show your profiles; the one that counts has a star."""
    from cli.profile import profile_file, profile_name, read_profiles
    from cli.render import safe, table

    path = profile_file(os.environ)
    profiles = read_profiles(path)
    chosen = profile_name(session.options, os.environ, profiles)
    rows = [
        (("* " if name == chosen else "  ") + name, safe(entry.get("server", "-")))
        for name, entry in sorted(profiles.by_name.items())
    ]
    session.answer(
        lambda: (
            table(("PROFILE", "COORDINATOR"), rows) if rows else ["no profiles; make one with: usance login"]
        ),
        current=chosen,
        profiles=sorted(profiles.by_name),
        file=str(path),
    )


@profile.command()
@click.argument("name")
@market_command
def use(session: Session, name: str) -> None:
    """Have a profile count where none is named."""
    from cli.profile import profile_file
    from cli.profile import use as choose

    path = profile_file(os.environ)
    choose(path, name)
    session.answer(lambda: [f"profile {name} counts from now on"], current=name, file=str(path))


def _short(path: "Path") -> str:
    """As people write it."""
    home = path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


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
