"""Who we are: login, logout, password, profile, whoami, wallet."""

import os
import sys
from typing import TYPE_CHECKING

import click

from cli.profile import Options
from cli.session import Session, market_command

if TYPE_CHECKING:
    from pathlib import Path

    from cli.client.market import Market
    from cli.connection import Connection, SessionTokens


_INVITATION_PREFIX = "usance_inv_"


@click.command()
@click.option("--account", default="", metavar="NAME", help="Sign in to this account by its password.")
@market_command
def login(session: Session, account: str) -> None:
    """Sign in, and keep what that gives, with the coordinator's address, in your profile.

    Give --server and --ca. With --account its password is asked for; without, a token, or the invitation that
    the operator sent you, and then the password that you wish to have. All of them are read from standard
    input, a line each, where that is no terminal. With --profile NAME it is kept under that name, beside
    others.
    """
    from dataclasses import replace

    from cli.profile import check_name, keep, load, profile_file, profile_name, read_profiles
    from cli.render import safe

    path, tokens, token = profile_file(os.environ), None, ""
    name = check_name(profile_name(session.options, os.environ, read_profiles(path)))
    if account:
        connection = load(session.options, os.environ, fresh=True, unknown=True)
        tokens = _by_password(session, connection, account)
    else:
        if session.options.token_file is None:
            token = asked("token or invitation").strip()
        if token.startswith(_INVITATION_PREFIX):
            connection = load(session.options, os.environ, fresh=True, unknown=True)
            tokens = _by_invitation(session, connection, token)
        else:
            connection = load(session.options, os.environ, fresh=True, token=token)
    if tokens is not None:
        connection = replace(connection, token=tokens.access_token)
    known = session.ask(lambda market: market.get_self(), connection)
    keep(path, name, connection, tokens)
    session.answer(
        lambda: [f"signed in as {safe(known.name)}; kept as profile {name} in {_short(path)}"],
        account=known,
        profile=name,
        file=str(path),
    )


def _by_password(session: Session, connection: "Connection", account: str) -> "SessionTokens":
    from runtime.ids import new_uuid

    password, request_id = asked("password"), str(new_uuid())
    return session.ask(lambda market: market.login.login(account, password, _place(), request_id), connection)


def _by_invitation(session: Session, connection: "Connection", invitation: str) -> "SessionTokens":
    from runtime.ids import new_uuid

    password, request_id = asked("the password you wish to have", again=True), str(new_uuid())
    _, tokens = session.ask(
        lambda market: market.login.accept(invitation, password, _place(), request_id), connection
    )
    return tokens


def asked(what: str, *, again: bool = False) -> str:
    """A secret: without echo from a terminal, `again` to be sure of it, or a line of standard input."""
    from cli.errors import WrongUse

    if sys.stdin.isatty():
        typed: str = click.prompt(what, hide_input=True, err=True, confirmation_prompt=again)
        return typed
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise WrongUse(f"nothing on standard input; a line is wanted: {what}")
    return line


def _place() -> str:
    """How a session is told from others of the account."""
    import platform

    return platform.node()[:64]


@click.command()
@market_command
def password(session: Session) -> None:
    """Change your password. Both are asked for, or read from standard input: the old one, then the new one.

    All your other sessions end by it; tokens of your scripts go on. Who has no password, or has forgotten it,
    asks the operator for an invitation.
    """
    from runtime.ids import new_uuid

    old, new = asked("old password"), asked("new password", again=True)
    request_id = str(new_uuid())
    session.ask(lambda market: market.sessions.change_password(old, new, request_id))
    session.answer(lambda: ["the password is changed; your other sessions have ended"], changed=True)


@click.command()
@click.option("--revoke", is_flag=True, help="Also have the token refused from now on, wherever it is.")
@market_command
def logout(session: Session, revoke: bool) -> None:
    """Forget what `usance login` kept in the profile: coordinator, token and all. A session is ended."""
    from cli.profile import ProfileSession, forget, profile_file, profile_name, read_profiles

    path = profile_file(os.environ)
    name = profile_name(session.options, os.environ, read_profiles(path))
    # What the environment names is not what is to be forgotten.
    mine = Session(options=Options(profile=name), as_json=session.as_json)
    revoked = ""
    if ProfileSession(path, name).read() is not None:
        revoked = _end_session(mine)
    elif revoke:
        revoked = _end_token(mine)
    left = forget(path, name)
    lines = [f"signed out: profile {name} is gone from {_short(path)}"]
    lines += [f"{revoked} is refused from now on"] if revoked else []
    lines += [f"the profile that counts now is {left.current}"] if left.by_name else []
    session.answer(lambda: lines, profile=name, file=str(path), revoked=revoked)


def _end_token(session: Session) -> str:
    from runtime.ids import new_uuid

    request_id = str(new_uuid())

    async def end(market: "Market") -> str:
        used = [token.token_id for token in await market.tokens.list_all() if token.current]
        return (await market.tokens.revoke(used[0], request_id)).token_id

    return session.ask(end)


def _end_session(session: Session) -> str:
    """Its name; "" where it was over, or nobody could be told: it is forgotten all the same."""
    from cli.errors import Refused, Unreachable
    from runtime.ids import new_uuid

    request_id = str(new_uuid())

    async def end(market: "Market") -> str:
        used = [one.session_id for one in await market.sessions.list_all() if one.current]
        return (await market.sessions.revoke(used[0], request_id)).session_id if used else ""

    try:
        return session.ask(end)
    except Refused as error:
        session.note(f"the session could not be ended: {error}")
    except Unreachable as error:
        session.note(f"the session is not ended, only forgotten here: {error}")
    return ""


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
