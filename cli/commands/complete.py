"""Completion: the script for a shell, and live names for it. Never an error, never a long wait."""

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click
from click.shell_completion import CompletionItem, get_completion_class

from cli.errors import UsanceError
from cli.session import Session, market_command

if TYPE_CHECKING:
    from cli.client.market import Market

_Result = TypeVar("_Result")
Names = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

VARIABLE = "_USANCE_COMPLETE"
# Longer than this nobody waits for a name.
_LIMIT_MS = 2_000
_NAMES_MAX = 50
_HINTS = {
    "bash": 'put into ~/.bashrc: eval "$(usance completion bash)"',
    "zsh": 'put into ~/.zshrc: eval "$(usance completion zsh)"',
    "fish": "run once: usance completion fish > ~/.config/fish/completions/usance.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(_HINTS)))
@market_command
def completion(session: Session, shell: str) -> None:
    """Print what makes a shell complete commands, options, and the ids of your jobs and hosts."""
    kind = get_completion_class(shell)
    assert kind is not None, "one of the choices"
    root = click.get_current_context().find_root()
    script = kind(root.command, {}, "usance", VARIABLE).source_template % {
        "complete_func": "_usance_completion",
        "complete_var": VARIABLE,
        "prog_name": "usance",
    }
    if not session.as_json:
        session.note(_HINTS[shell])
    session.answer(script.splitlines, shell=shell, script=script)


def complete(ask: "Callable[[Market], Awaitable[Sequence[tuple[str, str]]]]") -> Names:
    """Names that the market knows, each with a word about it, as far as they fit what is typed."""

    def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
        found = _quietly(ctx, ask) or ()
        return [CompletionItem(name, help=about) for name, about in found if name.startswith(incomplete)]

    return names


def _quietly(ctx: click.Context, ask: "Callable[[Market], Awaitable[_Result]]") -> _Result | None:
    import asyncio

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from cli.client.calls import Patience
    from cli.client.market import open_market
    from cli.profile import Options, load

    async def put() -> _Result:
        options = Options(
            server=ctx.params.get("server"),
            ca=ctx.params.get("ca"),
            token_file=ctx.params.get("token_file"),
            profile=ctx.params.get("profile"),
        )
        async with asyncio.timeout(_LIMIT_MS / 1_000):
            async with open_market(load(options, os.environ), patience=Patience(call_ms=0)) as market:
                return await ask(market)

    try:
        return asyncio.run(put())
    except (UsanceError, TimeoutError):
        return None


async def _jobs(market: "Market") -> list[tuple[str, str]]:
    from cli.render import safe, words

    found = [("@last", "the newest")]
    async for job in market.list_jobs(page_size=_NAMES_MAX):
        found.append((job.job_id, f"{safe(job.spec.name)}, {words(job.state)}"))
        if len(found) > _NAMES_MAX:
            break
    return found


async def _hosts(market: "Market") -> list[tuple[str, str]]:
    from cli.render import safe, words

    return [
        (host.host_id, f"{safe(host.hostname)}, {words(host.state)}") for host in await market.list_hosts()
    ]


async def _all_hosts(market: "Market") -> list[tuple[str, str]]:
    from cli.render import safe, words

    return [
        (owned.host.host_id, f"{safe(owned.account_name)}, {words(owned.host.state)}")
        for owned in await market.operations.list_hosts()
    ]


async def _tokens(market: "Market") -> list[tuple[str, str]]:
    from cli.render import safe

    return [(token.token_id, safe(token.label)) for token in await market.tokens.list_all()]


async def _sessions(market: "Market") -> list[tuple[str, str]]:
    from cli.render import safe

    return [(one.session_id, safe(one.label)) for one in await market.sessions.list_all()]


async def _accounts(market: "Market") -> list[tuple[str, str]]:
    from cli.render import words

    return [
        (account.name, ", ".join(words(role) for role in account.roles))
        for account in await market.list_accounts()
    ]


JOBS, HOSTS, ALL_HOSTS = complete(_jobs), complete(_hosts), complete(_all_hosts)
TOKENS, SESSIONS, ACCOUNTS = complete(_tokens), complete(_sessions), complete(_accounts)
