"""What the operator does for people who sign in: invitations, sessions, an identity provider's subjects."""

import click

from cli.commands.asked import TEXT
from cli.commands.complete import ACCOUNTS
from cli.commands.sessions import end_session, show_sessions
from cli.commands.wanted import DURATION
from cli.session import Session, market_command


@click.command()
@click.argument("name", shell_complete=ACCOUNTS)
@click.option("--lifetime", type=DURATION, default=0, help="How long it is good for, like 1d [3d].")
@click.option("--reset", is_flag=True, help="Refuse its password from now on, and end its sessions.")
@market_command
def invite(session: Session, name: str, lifetime: int, reset: bool) -> None:
    """Make an invitation, with which a person sets the account's password, once: the first, or another.

    The invitation alone comes on stdout, only this once; `usance login` takes it. An older one is void.
    """
    from cli.screens import moment
    from runtime.ids import new_uuid

    request_id = str(new_uuid())
    made = session.ask(lambda market: market.people.invite(name, lifetime, request_id, reset=reset))
    if not session.as_json:
        session.note(f"good until {moment(made.expires_at_ms)}")
    session.answer(lambda: [made.token], invitation=made)


@click.command()
@click.argument("name", shell_complete=ACCOUNTS)
@click.option("--all", "also_bad", is_flag=True, help="Also those that are over or were ended.")
@market_command
def sessions(session: Session, name: str, also_bad: bool) -> None:
    """Show where an account is signed in, newest first."""
    show_sessions(session, name, also_bad=also_bad)


@click.command("session-revoke")
@click.argument("name", shell_complete=ACCOUNTS)
@click.argument("session_id", metavar="SESSION")
@market_command
def session_revoke(session: Session, name: str, session_id: str) -> None:
    """End a session of an account; SESSION is a name that `admin sessions` shows."""
    end_session(session, name, session_id)


@click.command()
@market_command
def subjects(session: Session) -> None:
    """Show who of your identity provider is which account."""
    from cli.overviews import subjects_screen

    found = session.ask(lambda market: market.people.list_subjects())
    session.answer(lambda: subjects_screen(found), subjects=found)


@click.command("subject-bind")
@click.argument("name", shell_complete=ACCOUNTS)
@click.argument("subject", type=TEXT)
@market_command
def subject_bind(session: Session, name: str, subject: str) -> None:
    """Let the identity provider's SUBJECT (the claim `sub` of its tokens) be an account from now on."""
    from cli.render import safe
    from runtime.ids import new_uuid

    request_id = str(new_uuid())
    session.ask(lambda market: market.people.bind_subject(name, subject, request_id))
    session.answer(lambda: [f"{safe(subject)} is {name} from now on"], subject=subject, account=name)


@click.command("subject-release")
@click.argument("subject", type=TEXT)
@market_command
def subject_release(session: Session, subject: str) -> None:
    """Let the identity provider's SUBJECT be nobody from now on."""
    from cli.render import safe
    from runtime.ids import new_uuid

    request_id = str(new_uuid())
    name = session.ask(lambda market: market.people.release_subject(subject, request_id))
    session.answer(
        lambda: [f"{safe(subject)} was {safe(name)}, and is nobody now"], subject=subject, account=name
    )
