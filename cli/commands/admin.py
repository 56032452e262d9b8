"""The operator's: accounts, tokens, deposits and the books."""

import sys
from typing import TYPE_CHECKING

import click

from cli.commands.asked import TEXT
from cli.commands.complete import ACCOUNTS, ALL_HOSTS
from cli.commands.invite import (
    invite,
    session_revoke,
    sessions,
    subject_bind,
    subject_release,
    subjects,
)
from cli.commands.tokens import SCOPES, revoke_token, show_tokens
from cli.commands.wanted import CREDITS, DURATION
from cli.exits import Exit
from cli.model import HostState, Role
from cli.people import Account, Host
from cli.session import Session, market_command, pick_host

if TYPE_CHECKING:
    from cli.client.market import Market
    from cli.render import Part


@click.group()
def admin() -> None:
    """Operate the market: accounts, tokens, deposits, the books."""


for _command in (invite, sessions, session_revoke, subjects, subject_bind, subject_release):
    admin.add_command(_command)


@admin.command("account-create")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=click.Choice(["buyer", "seller", "operator"]),
    multiple=True,
    required=True,
    help="What the account may be; repeatable.",
)
@market_command
def account_create(session: Session, name: str, roles: tuple[str, ...]) -> None:
    """Open an account."""
    from runtime.ids import new_uuid

    request_id = str(new_uuid())
    wanted = tuple(Role(role.upper()) for role in roles)
    made = session.ask(lambda market: market.create_account(name, wanted, request_id))
    session.answer(
        lambda: [f"{made.name} is {made.account_id}; next: usance admin invite {made.name}, or admin token"],
        account=made,
    )


@admin.command()
@market_command
def accounts(session: Session) -> None:
    """Show all accounts with their balances."""
    found = session.ask(lambda market: market.list_accounts())
    session.answer(lambda: _accounts_screen(found), accounts=found)


def _accounts_screen(found: list[Account]) -> "list[Part]":
    from cli.render import amount, safe, table, words

    rows = [
        (
            safe(account.name),
            ",".join(words(role) for role in account.roles),
            amount(account.wallet_micro),
            amount(account.held_micro),
            amount(account.earnings_micro),
            account.account_id,
        )
        for account in found
    ]
    return table(("NAME", "ROLES", "WALLET (CREDITS)", "HELD", "EARNINGS", "ACCOUNT"), rows)


@admin.command()
@click.argument("name", shell_complete=ACCOUNTS)
@click.option("--lifetime", type=DURATION, default=0, help="How long it is good for, like 90d [30d].")
@SCOPES
@market_command
def token(session: Session, name: str, lifetime: int, scopes: tuple[str, ...]) -> None:
    """Make an access token for an account. The token alone comes on stdout, only this once."""
    from cli.screens import moment
    from runtime.ids import new_uuid

    request_id = str(new_uuid())
    made = session.ask(lambda market: market.create_token(name, lifetime, request_id, scopes))
    if not session.as_json:
        session.note(f"good until {moment(made.expires_at_ms)}")
    session.answer(lambda: [made.token], token=made)


@admin.command()
@click.argument("name", shell_complete=ACCOUNTS)
@click.option("--all", "also_bad", is_flag=True, help="Also those that have expired or were revoked.")
@market_command
def tokens(session: Session, name: str, also_bad: bool) -> None:
    """Show the tokens of an account, newest first, without their secrets."""
    show_tokens(session, name, also_bad=also_bad)


@admin.command("token-revoke")
@click.argument("name", shell_complete=ACCOUNTS)
@click.argument("token_id", metavar="TOKEN")
@market_command
def token_revoke(session: Session, name: str, token_id: str) -> None:
    """Have a token of an account refused from now on; TOKEN is a name that `admin tokens` shows."""
    revoke_token(session, name, token_id)


@admin.command()
@click.argument("name", shell_complete=ACCOUNTS)
@click.argument("amount", type=CREDITS)
@click.option("--reason", type=TEXT, required=True, help="For the books: what the credits were given for.")
@market_command
def deposit(session: Session, name: str, amount: int, reason: str) -> None:
    """Put credits that came in from outside into an account's wallet."""
    from cli.render import in_credits
    from runtime.ids import new_uuid

    request_id = str(new_uuid())
    after = session.ask(lambda market: market.deposit(name, amount, reason, request_id))
    session.answer(lambda: [f"{name} now has {in_credits(after)}"], wallet_micro=after)


@admin.command()
@click.argument("name", shell_complete=ACCOUNTS)
@click.argument("amount", type=CREDITS)
@click.option("--reason", type=TEXT, required=True, help="For the books: how it was paid out.")
@click.option("--wallet", "from_wallet", is_flag=True, help="From the wallet, not from the earnings.")
@market_command
def withdraw(session: Session, name: str, amount: int, reason: str, from_wallet: bool) -> None:
    """Take credits that were paid out to the world from an account's earnings, or from its wallet."""
    from cli.books import Purse
    from cli.render import in_credits
    from runtime.ids import new_uuid

    request_id, purse = str(new_uuid()), Purse.WALLET if from_wallet else Purse.EARNINGS
    after = session.ask(lambda market: market.operations.withdraw(name, purse, amount, reason, request_id))
    where = "wallet" if from_wallet else "earnings"
    session.answer(lambda: [f"{name} has {in_credits(after)} left in its {where}"], balance_micro=after)


@admin.command()
@click.argument("job_id", metavar="JOB")
@click.argument("amount", type=CREDITS)
@click.option("--reason", type=TEXT, required=True, help="For the buyer and the books: why.")
@market_command
def refund(session: Session, job_id: str, amount: int, reason: str) -> None:
    """Give a buyer back some of what a job has cost, at the platform's expense; JOB is its whole id.

    What a host's fault made worthless comes back by itself; this is for everything else.
    """
    from cli.render import in_credits
    from runtime.ids import new_uuid

    request_id = str(new_uuid())
    refunded, cost = session.ask(lambda market: market.operations.refund(job_id, amount, reason, request_id))
    session.answer(
        lambda: [f"{job_id}: {in_credits(refunded)} given back in all, {in_credits(cost)} its cost now"],
        refunded_micro=refunded,
        cost_micro=cost,
    )


@admin.command("gpu-claims")
@market_command
def gpu_claims(session: Session) -> None:
    """Show GPUs that one host names and another has: they are sold from the other alone."""
    from cli.overviews import gpu_claims_screen

    found = session.ask(lambda market: market.operations.list_gpu_claims())
    session.answer(lambda: gpu_claims_screen(found), claims=found)


@admin.command("gpu-release")
@click.argument("gpu")
@click.option("--reason", type=TEXT, required=True, help="For both sellers: why.")
@market_command
def gpu_release(session: Session, gpu: str, reason: str) -> None:
    """Take a GPU from its host, for the host that has claimed it for longest, or the next that names it.

    Not while a job has it: quarantine the host first, and wait.
    """
    from runtime.ids import new_uuid

    request_id = str(new_uuid())
    owner = session.ask(lambda market: market.operations.release_gpu(gpu, reason, request_id))
    session.answer(
        lambda: [f"it belongs to {owner}" if owner else "it belongs to the next host that names it"],
        host_id=owner,
    )


@admin.command()
@click.option(
    "--state",
    type=click.Choice([state.lower() for state in HostState if state is not HostState.UNSPECIFIED]),
    default=None,
    help="Only hosts in this state.",
)
@market_command
def hosts(session: Session, state: str | None) -> None:
    """Show all hosts of the market and whose they are."""
    from cli.overviews import all_hosts_screen

    wanted = HostState(state.upper()) if state else None
    found = session.ask(lambda market: market.operations.list_hosts(wanted))
    session.answer(lambda: all_hosts_screen(found), hosts=found)


@admin.command()
@market_command
def health(session: Session) -> None:
    """Show how the market is doing: hosts, jobs, the queue, the ledger."""
    from cli.overviews import health_screen
    from runtime.clock import SystemClock

    found = session.ask(lambda market: market.operations.get_health())
    session.answer(lambda: health_screen(found, SystemClock().wall_ms()), health=found)
    if found.sum_micro != 0:
        sys.exit(Exit.BROKEN)


@admin.command("trial-balance")
@market_command
def trial_balance(session: Session) -> None:
    """Show every ledger account's balance; their sum is zero."""
    from cli.render import amount, safe, table

    found = session.ask(lambda market: market.get_trial_balance())
    rows = [(safe(line.ledger_account), amount(line.balance_micro)) for line in found.lines]
    rows.append(("sum", amount(found.sum_micro)))
    session.answer(lambda: table(("LEDGER ACCOUNT", "CREDITS"), rows), trial_balance=found)
    if found.sum_micro != 0 or sum(line.balance_micro for line in found.lines) != 0:
        sys.exit(Exit.BROKEN)


@admin.command("audit-log")
@click.option("--account", default="", shell_complete=ACCOUNTS, help="Only what this account did.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, help="At most so many [100].")
@market_command
def audit_log(session: Session, account: str, limit: int) -> None:
    """Show who did what that needs trust or moves money, newest first: from where, and the result."""
    from cli.overviews import acts_screen

    found = session.ask(lambda market: market.operations.list_acts(account, 0, limit))
    session.answer(lambda: acts_screen(found), acts=found)


@admin.command()
@market_command
def audit(session: Session) -> None:
    """Check every invariant of the ledger and the market; show what is violated, normally nothing."""
    from cli.render import plural, safe

    found = session.ask(lambda market: market.run_audit())
    session.answer(
        lambda: [
            *(f"VIOLATED: {safe(violation)}" for violation in found.violations),
            f"{plural(found.transfers_checked, 'transfer')} checked, "
            f"{plural(len(found.violations), 'violation')} found",
        ],
        audit=found,
    )
    if found.violations:
        sys.exit(Exit.BROKEN)


@admin.command()
@click.argument("host", shell_complete=ALL_HOSTS)
@click.option("--reason", type=TEXT, required=True, help="For the seller and the books: why.")
@market_command
def quarantine(session: Session, host: str, reason: str) -> None:
    """Give a host no new jobs until you trust it again; what runs goes on."""
    from cli.screens import hosts_screen
    from runtime.ids import new_uuid

    request_id = str(new_uuid())

    async def ask(market: "Market") -> Host:
        return await market.quarantine_host(await _resolve_any_host(market, host), reason, request_id)

    changed = session.ask(ask)
    session.answer(lambda: hosts_screen([changed]), host=changed)


@admin.command("revoke-host")
@click.argument("host", shell_complete=ALL_HOSTS)
@click.option("--reason", type=TEXT, required=True, help="For the seller and the books: why.")
@market_command
def revoke_host(session: Session, host: str, reason: str) -> None:
    """Refuse a host for ever, from now on, as when its machine or its key was stolen; its jobs end.

    Its seller can bring the machine back as another host, with a fresh enrolment token.
    """
    from cli.screens import hosts_screen
    from runtime.ids import new_uuid

    request_id = str(new_uuid())

    async def ask(market: "Market") -> Host:
        return await market.revoke_host(await _resolve_any_host(market, host), reason, request_id)

    changed = session.ask(ask)
    session.answer(lambda: hosts_screen([changed]), host=changed)


@admin.command()
@click.argument("host", shell_complete=ALL_HOSTS)
@market_command
def unquarantine(session: Session, host: str) -> None:
    """Give a host jobs again."""
    from cli.screens import hosts_screen
    from runtime.ids import new_uuid

    request_id = str(new_uuid())

    async def ask(market: "Market") -> Host:
        return await market.unquarantine_host(await _resolve_any_host(market, host), request_id)

    changed = session.ask(ask)
    session.answer(lambda: hosts_screen([changed]), host=changed)


async def _resolve_any_host(market: "Market", text: str) -> str:
    """One of all hosts: by its id, a unique beginning of it, or its name."""
    every = await market.operations.list_hosts()
    return pick_host(text, [(owned.host.host_id, owned.host.hostname) for owned in every])
