"""Where an account is signed in: list, revoke."""

import click

from cli.commands.complete import SESSIONS
from cli.session import Session, market_command


@click.group()
def sessions() -> None:
    """Show where you are signed in, or end a session."""


@sessions.command("list")
@click.option("--all", "also_bad", is_flag=True, help="Also those that are over or were ended.")
@market_command
def list_(session: Session, also_bad: bool) -> None:
    """Show the sessions of your account, newest first."""
    show_sessions(session, "", also_bad=also_bad)


@sessions.command()
@click.argument("session_id", metavar="SESSION", shell_complete=SESSIONS)
@market_command
def revoke(session: Session, session_id: str) -> None:
    """End a session, wherever it is; SESSION is a name that `usance sessions list` shows."""
    end_session(session, "", session_id)


def show_sessions(session: Session, account_name: str, *, also_bad: bool) -> None:
    from cli.overviews import sessions_screen
    from runtime.clock import SystemClock

    found = session.ask(lambda market: market.sessions.list_all(account_name=account_name, also_bad=also_bad))
    session.answer(lambda: sessions_screen(found, SystemClock().wall_ms()), sessions=found)


def end_session(session: Session, account_name: str, session_id: str) -> None:
    from runtime.ids import new_uuid

    request_id = str(new_uuid())
    ended = session.ask(
        lambda market: market.sessions.revoke(session_id, request_id, account_name=account_name)
    )
    session.answer(lambda: [f"{ended.session_id} is refused from now on"], session=ended)
