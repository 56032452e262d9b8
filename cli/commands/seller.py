"""A seller's own: hosts, pause, resume, reclaim, enroll-token."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from cli.commands.complete import HOSTS
from cli.people import Host
from cli.session import Session, market_command, resolve_host

if TYPE_CHECKING:
    from cli.client.market import Market


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


@click.command()
@click.argument("host", shell_complete=HOSTS)
@market_command
def pause(session: Session, host: str) -> None:
    """Take no new jobs on a host; what runs goes on."""
    _change(session, host, lambda market, host_id, request_id: market.pause_host(host_id, request_id))


@click.command()
@click.argument("host", shell_complete=HOSTS)
@market_command
def resume(session: Session, host: str) -> None:
    """Take jobs on a host again."""
    _change(session, host, lambda market, host_id, request_id: market.resume_host(host_id, request_id))


@click.command()
@click.argument("host", shell_complete=HOSTS)
@market_command
def reclaim(session: Session, host: str) -> None:
    """Take a host back: no new jobs, and what runs is ended when the promised notice is over.

    Buyers get back what your taking it back made worthless: the whole attempt, or its last ten minutes.
    """
    _change(session, host, lambda market, host_id, request_id: market.reclaim_host(host_id, request_id))


def _change(session: Session, host: str, change: "Callable[[Market, str, str], Awaitable[Host]]") -> None:
    from cli.screens import hosts_screen
    from runtime.ids import new_uuid

    request_id = str(new_uuid())

    async def ask(market: "Market") -> Host:
        return await change(market, await resolve_host(market, host), request_id)

    changed = session.ask(ask)
    session.answer(lambda: hosts_screen([changed]), host=changed)
