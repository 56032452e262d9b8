"""The command tree, and what becomes of an error: one sentence, one exit code, never a traceback."""

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from cli.errors import Broken, Unreachable, UsanceError, WrongUse
from cli.exits import Exit, exit_of_error
from cli.session import say

# Name to module of `cli.commands` and what the help says of it, in the order of the help. Only what is called
# is imported: a command must not wait for what the others need, nor the help for any of them.
_COMMANDS = {
    "login": ("account", "Sign in by a password, an invitation or a token, and keep it"),
    "logout": ("account", "Sign out: end the session, forget what `usance login` kept"),
    "password": ("account", "Change your password"),
    "sessions": ("sessions", "Show where you are signed in, or end a session"),
    "profile": ("account", "Show your profiles, or choose one"),
    "whoami": ("account", "Show the account that the token belongs to"),
    "token": ("tokens", "Make, list and revoke access tokens of your account"),
    "offers": ("market", "Show what is to be had now"),
    "quote": ("market", "Say what a job would cost and where it would run now"),
    "run": ("run", "Run a command on a GPU of the market and stay with it"),
    "apply": ("apply", "Run the job that a TOML file describes"),
    "jobs": ("jobs", "Show your jobs, newest first"),
    "show": ("jobs", "Show where a job stands, its attempts and its cost so far"),
    "why": ("jobs", "Say why a job has no host yet, or why it ended so"),
    "logs": ("jobs", "Write a job's output"),
    "wait": ("jobs", "Wait for a job's end"),
    "cancel": ("jobs", "Ask for a job's end"),
    "extend": ("jobs", "Give a job more money, more time, or a longer wait"),
    "top": ("top", "Show your running jobs live: what they use and cost"),
    "bill": ("jobs", "Show what a job has cost, record by record"),
    "wallet": ("account", "Show your balances"),
    "statement": ("books", "Show every movement of your wallet or earnings"),
    "costs": ("books", "Show what your jobs have cost, by label, day or month"),
    "budget": ("books", "Show your monthly cap and alerts, or set them"),
    "hosts": ("seller", "Show your hosts and what they have free"),
    "earnings": ("books", "Show what your hosts have earned"),
    "price": ("books", "Show what each GPU model is offered for"),
    "pause": ("seller", "Take no new jobs on a host; what runs goes on"),
    "resume": ("seller", "Take jobs on a host again"),
    "reclaim": ("seller", "Take a host back; what runs is ended in time"),
    "enroll-token": ("seller", "Make a token with which one machine can be enrolled"),
    "admin": ("admin", "Operate the market: accounts, deposits, hosts, the books"),
    "completion": ("complete", "Print what makes a shell complete commands and ids"),
    "help": ("guide", "Explain a command, or a topic like exit-codes or job-file"),
}


class _NobodyReadsError(Exception):
    """For a broken pipe, of which click would make an exit code of its own."""


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _NobodyReadsError from error

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- they are always the same
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        command = getattr(import_module(f"cli.commands.{module}"), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command), cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in _COMMANDS or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        import difflib

        close = difflib.get_close_matches(args[0], _COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else "see: usance --help"
        raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="usance", prog_name="usance")
def usance() -> None:
    """Usance: a market for GPU time between peers.

    Buyers run, sellers host, the operator keeps the books. Start with: usance login --server HOST:PORT
    --ca FILE. A JOB is an id, a unique beginning of one, a name that one job has, or @last.
    More: usance help.
    """


def execute(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    as_json = _wants(arguments, "--json", "USANCE_JSON")
    for stream in (sys.stdout, sys.stderr):
        # What a terminal's encoding lacks is shown escaped, and is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        usance.main(
            args=list(arguments), prog_name="usance", standalone_mode=False, auto_envvar_prefix="USANCE"
        )
        sys.stdout.flush()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else Exit.OK
    except click.exceptions.NoArgsIsHelpError as asked:
        sys.stderr.write(f"{asked.format_message()}\n")
        return Exit.WRONG_USE
    except click.ClickException as error:
        _tell(WrongUse(error.format_message()), as_json=as_json)
        return Exit.WRONG_USE
    except UsanceError as error:
        _show_place(arguments)
        _tell(error, as_json=as_json)
        return exit_of_error(error)
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("\n")
        return Exit.INTERRUPTED
    except (BrokenPipeError, _NobodyReadsError):
        # Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 -- the program's top: whatever it is, a person gets a sentence
        _show_place(arguments)
        mistake = f"a mistake of the program's own: {type(error).__name__}: {error}; --debug shows where"
        _tell(Broken(mistake), as_json=as_json)
        return Exit.BROKEN
    return Exit.OK


def _wants(arguments: Sequence[str], option: str, variable: str) -> bool:
    """Known also when the rest of the line can't be understood."""
    ours = arguments[: list(arguments).index("--")] if "--" in arguments else arguments
    return option in ours or os.environ.get(variable, "").lower() in {"1", "true", "t", "yes", "y", "on"}


def _show_place(arguments: Sequence[str]) -> None:
    if _wants(arguments, "--debug", "USANCE_DEBUG"):
        import traceback

        traceback.print_exc()


def _tell(error: UsanceError, *, as_json: bool) -> None:
    from cli.render import document, safe

    if as_json:
        content = {"code": error.code, "message": str(error), "faults": error.faults}
        if error.request_id:
            content["request_id"] = error.request_id
        sys.stderr.write(document(error=content) + "\n")
        return
    say(safe(str(error)))
    for fault in error.faults:
        if fault.description not in str(error):
            say(f"  {safe(fault.field)}: {safe(fault.description)}")
    if error.request_id and isinstance(error, (Broken, Unreachable)):
        say(f"  quote {error.request_id} to the operator")
