"""What every command has: its connection, its way to answer, and the shared options.

The client is imported when it is needed: `usance --help` must not wait for gRPC.
"""

import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from cli.errors import UsanceError, WrongUse
from cli.profile import Options, load
from runtime.ids import new_id
from runtime.text import printable
from runtime.tracing import ENVIRONMENT, Tracer, TracesError, open_tracer

if TYPE_CHECKING:
    from cli.client.market import Market
    from cli.connection import Connection
    from cli.model import Job
    from cli.render import Part

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Value = TypeVar("_Value")


def say(line: str) -> None:
    """A line of ours to the person; stdout is for answers and for the job's own output."""
    sys.stderr.write(f"usance: {printable(line)}\n")
    sys.stderr.flush()


@dataclass(frozen=True, kw_only=True)
class Session:
    options: Options
    as_json: bool
    # All that the command asks for is one request in everybody's logs.
    request_id: str = field(default_factory=lambda: new_id("req"))

    def ask(
        self,
        question: "Callable[[Market], Awaitable[_Result]]",
        connection: "Connection | None" = None,
    ) -> _Result:
        """Connect, to where the profile says if not told, put the question, close."""
        import asyncio

        # gRPC would write its own log beside our one clear sentence.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from cli.client.market import open_market

        place = connection or load(self.options, os.environ)
        told: list[str] = []

        def tell_trouble(trouble: UsanceError) -> None:
            # Once for each sentence: a coordinator that is away for minutes must not fill the screen.
            if str(trouble) not in told:
                told.append(str(trouble))
                self.note(f"{trouble}; trying again")

        traces = _tracer()

        async def put() -> _Result:
            with traces.span("usance", {"request_id": self.request_id}) as part_of:
                async with open_market(
                    place,
                    on_trouble=tell_trouble,
                    request_id=self.request_id,
                    traces=traces,
                    part_of=part_of,
                ) as market:
                    return await question(market)

        try:
            return asyncio.run(put())
        finally:
            traces.close()

    def note(self, line: str) -> None:
        """Progress for a person; a program that asked for JSON gets it as JSON too."""
        from cli.render import document, safe

        if self.as_json:
            sys.stderr.write(document(note=line) + "\n")
            sys.stderr.flush()
        else:
            say(safe(line))

    def note_document(self, **content: object) -> None:
        """A JSON line beside the job's output, which has stdout for itself."""
        from cli.render import document

        sys.stderr.write(document(**content) + "\n")
        sys.stderr.flush()

    def answer(self, parts: "Callable[[], Sequence[Part]]", **content: object) -> None:
        """The command's result on stdout: one JSON object, or what people read, as wide as their terminal."""
        from cli.render import document, lay_out

        if self.as_json:
            sys.stdout.write(document(**content) + "\n")
        else:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
            sys.stdout.write("".join(f"{line}\n" for line in lay_out(parts(), width)))
        sys.stdout.flush()


def _tracer() -> Tracer:
    try:
        return open_tracer("usance", os.environ.get(ENVIRONMENT, ""))
    except TracesError as error:
        raise WrongUse(f"{ENVIRONMENT}: {error}") from error


def market_command(
    command: Callable[..., None],
) -> Callable[..., None]:
    """Give a command the shared options, and a Session as its first argument."""

    @click.option(
        "--json",
        "as_json",
        is_flag=True,
        envvar="USANCE_JSON",
        help="Answer and fail in JSON, for programs [USANCE_JSON=1].",
    )
    @click.option(
        "--utc",
        is_flag=True,
        envvar="USANCE_UTC",
        help="Show times in UTC, not in your own zone [USANCE_UTC=1].",
    )
    @click.option(
        "--debug",
        is_flag=True,
        envvar="USANCE_DEBUG",
        help="On an error, show where in the program it came up [USANCE_DEBUG=1].",
    )
    @click.option("--profile", metavar="NAME", help="Which of your profiles to use [USANCE_PROFILE].")
    @click.option("--server", metavar="HOST:PORT", help="The coordinator's market port [USANCE_SERVER].")
    @click.option(
        "--ca",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The authority's certificate that the coordinator must show [USANCE_CA].",
    )
    @click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="USANCE_TOKEN_FILE",
        help="File with the access token [USANCE_TOKEN_FILE; the token itself: USANCE_TOKEN].",
    )
    @wraps(command)
    def with_session(
        as_json: bool,
        utc: bool,
        debug: bool,  # noqa: ARG001 -- read by whoever runs the command
        profile: str | None,
        server: str | None,
        ca: Path | None,
        token_file: Path | None,
        **others: object,
    ) -> None:
        if utc:
            os.environ["TZ"] = "UTC"
            time.tzset()
        options = Options(server=server, token_file=token_file, ca=ca, profile=profile)
        command(Session(options=options, as_json=as_json), **others)

    return with_session


class Typed(click.ParamType[object]):
    """An option's value by one of the functions of `cli.parse`."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


async def resolve_host(market: "Market", text: str) -> str:
    """One of the caller's own hosts: by its id, a unique beginning of it, or its name."""
    return pick_host(text, [(host.host_id, host.hostname) for host in await market.list_hosts()])


def pick_host(text: str, hosts: Sequence[tuple[str, str]]) -> str:
    """Of ids with names. What fits none is left to the market, which knows what to say of it."""
    if any(host_id == text for host_id, _ in hosts):
        return text
    found = [
        host_id
        for host_id, name in hosts
        if text == name or host_id.startswith(text) or host_id.removeprefix(_HOST_PREFIX).startswith(text)
    ]
    if len(found) > 1:
        raise WrongUse(f"{len(found)} hosts are named or begin with {text!r}, like {found[0]} and {found[1]}")
    return found[0] if found else text


async def resolve_job(market: "Market", text: str) -> str:
    """A job's id from the id, a unique beginning of it (with or without its prefix), its name, or @last.

    A name that several jobs have means the one of them that has not ended.
    """
    if text == "@last":
        async for job in market.list_jobs(page_size=1):
            return job.job_id
        raise WrongUse("you have no jobs yet, so there is no @last")
    if len(text) >= JOB_ID_LENGTH and text.startswith(_JOB_PREFIX):
        return text
    found = [job async for job in market.list_jobs(page_size=500) if _is_meant(job, text)]
    if not found:
        raise WrongUse(f"no job of yours is named or begins with {text!r}; see: usance jobs")
    live = [job for job in found if not job.ended]
    if len(found) > 1 and len(live) == 1 and all(job.spec.name == text for job in found):
        return live[0].job_id
    if len(found) > 1:
        raise WrongUse(
            f"{len(found)} jobs of yours are named or begin with {text!r}, like {found[0].job_id} and "
            f"{found[1].job_id}"
        )
    return found[0].job_id


def _is_meant(job: "Job", text: str) -> bool:
    bare = job.job_id.removeprefix(_JOB_PREFIX)
    return text == job.spec.name or job.job_id.startswith(text) or bare.startswith(text)


_JOB_PREFIX = "job_"
_HOST_PREFIX = "host_"
JOB_ID_LENGTH = len(_JOB_PREFIX) + 26
