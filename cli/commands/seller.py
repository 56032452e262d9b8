"""A seller's own: hosts, enroll-token."""

import click

from cli.session import Session, market_command


@click.command()
@market_command
def hosts(session: Session) -> None:
    """Show your hosts and what they have free."""
    from cli.screens import hosts_screen

    found = session.ask(lambda market: market.list_hosts())
    session.answer(lambda: hosts_screen(found), hosts=found)


@click.command("enroll-token")
@market_command
def enroll_token(session: Session) -> None:
    """Make a token with which one machine can be enrolled, once, within the hour.

    The token alone comes on stdout. Give it to: usance-agent enroll TOKEN
    """
    from cli.screens import moment
    from runtime.ids import new_uuid

    request_id = str(new_uuid())
    made = session.ask(lambda market: market.create_enrolment_token(request_id))
    if not session.as_json:
        session.note(f"good for one machine until {moment(made.expires_at_ms)}: usance-agent enroll TOKEN")
    session.answer(lambda: [made.token], enrolment_token=made)
