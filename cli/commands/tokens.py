"""Tokens, yours and, for the operator, everybody's: create, list, revoke."""

import click

from cli.commands.asked import TEXT
from cli.commands.complete import TOKENS
from cli.commands.wanted import DURATION
from cli.session import Session, market_command

SCOPES = click.option(
    "--scope",
    "scopes",
    type=TEXT,
    multiple=True,
    metavar="SCOPE",
    help="What it opens and nothing else, like jobs:read, jobs:write, wallet:read, hosts:* or admin:read;"
    " repeatable [everything].",
)


@click.group()
def token() -> None:
    """Make, list and revoke access tokens of your account."""


@token.command()
@click.option("--label", type=TEXT, default="", help="What it is for, like ci or laptop.")
@click.option(
    "--lifetime",
    type=DURATION,
    default=0,
    help="How long it is good for, like 1h or 90d; no longer than the token you use [30d].",
)
@SCOPES
@market_command
def create(session: Session, label: str, lifetime: int, scopes: tuple[str, ...]) -> None:
    """Make a further token for your account. The token alone comes on stdout, only this once."""
    from cli.screens import moment
    from runtime.ids import new_uuid

    request_id = str(new_uuid())
    made = session.ask(lambda market: market.tokens.create(label, lifetime, request_id, scopes))
    if not session.as_json:
        session.note(f"good until {moment(made.expires_at_ms)}")
    session.answer(lambda: [made.token], token=made)


@token.command("list")
@click.option("--all", "also_bad", is_flag=True, help="Also those that have expired or were revoked.")
@market_command
def list_(session: Session, also_bad: bool) -> None:
    """Show the tokens of your account, newest first, without their secrets."""
    show_tokens(session, "", also_bad=also_bad)


@token.command()
@click.argument("token_id", metavar="TOKEN", shell_complete=TOKENS)
@market_command
def revoke(session: Session, token_id: str) -> None:
    """Have a token refused from now on; TOKEN is a name that `usance token list` shows."""
    revoke_token(session, "", token_id)


def show_tokens(session: Session, account_name: str, *, also_bad: bool) -> None:
    from cli.overviews import tokens_screen
    from runtime.clock import SystemClock

    found = session.ask(lambda market: market.tokens.list_all(account_name=account_name, also_bad=also_bad))
    session.answer(lambda: tokens_screen(found, SystemClock().wall_ms()), tokens=found)


def revoke_token(session: Session, account_name: str, token_id: str) -> None:
    from runtime.ids import new_uuid

    request_id = str(new_uuid())
    revoked = session.ask(
        lambda market: market.tokens.revoke(token_id, request_id, account_name=account_name)
    )
    session.answer(lambda: [f"{revoked.token_id} is refused from now on"], token=revoked)
