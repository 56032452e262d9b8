"""What became of a job: jobs, show, why, logs, wait, cancel, extend, bill."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.commands.complete import JOBS
from cli.commands.run import tell_end
from cli.commands.wanted import CREDITS, DURATION
from cli.errors import WrongUse
from cli.exits import Exit, exit_of_job
from cli.model import Bill, Event, Job
from cli.parse import parse_tail
from cli.session import Session, Typed, market_command, resolve_job

if TYPE_CHECKING:
    from cli.client.market import Market

TAIL = Typed("LINES|SIZE", parse_tail)
job_argument = click.argument("job", metavar="JOB", shell_complete=JOBS)


@click.command()
@click.option("--live", is_flag=True, help="Only jobs that have not ended.")
@click.option("-n", "--count", type=click.IntRange(1), default=50, help="The most to show [50].")
@market_command
def jobs(session: Session, live: bool, count: int) -> None:
    """Show your jobs, newest first."""
    from cli.screens import jobs_screen

    async def newest(market: "Market") -> list[Job]:
        found: list[Job] = []
        async for job in market.list_jobs(live_only=live, page_size=min(count, 500)):
            found.append(job)
            if len(found) == count:
                break
        return found

    found = session.ask(newest)
    session.answer(lambda: jobs_screen(found), jobs=found)


@click.command()
@job_argument
@market_command
def show(session: Session, job: str) -> None:
    """Show where a job stands, its attempts, what has happened, and its cost so far."""
    from cli.screens import job_screen, timeline_screen

    async def get(market: "Market") -> tuple[Job, list[Event]]:
        job_id = await resolve_job(market, job)
        events = [event async for event in market.watch_job(job_id, until_now=True)]
        return await market.get_job(job_id), events

    found, events = session.ask(get)
    session.answer(lambda: [*job_screen(found), "", *timeline_screen(events)], job=found, events=events)


@click.command()
@job_argument
@market_command
def why(session: Session, job: str) -> None:
    """Say why a job has no host yet, and what would help; or why it ended so, and who pays."""
    from cli.screens import why_screen

    async def get(market: "Market") -> Job:
        return await market.get_job(await resolve_job(market, job))

    found = session.ask(get)
    session.answer(lambda: why_screen(found), job=found)


@click.command()
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Wait for more until the output is complete.")
@click.option(
    "--tail", type=TAIL, default=None, help="Begin so many lines before the end, or bytes: 100, 10kB."
)
@click.option("--since", type=DURATION, default=0, help="Begin with what came in so long ago, like 5m.")
@click.option("--stderr", "stderr_alone", is_flag=True, help="Only its stderr, on stdout.")
@click.option("--timestamps", is_flag=True, help="Before each line, when the market stored its beginning.")
@market_command
def logs(
    session: Session,
    job: str,
    follow: bool,
    tail: tuple[int, int] | None,
    since: int,
    stderr_alone: bool,
    timestamps: bool,
) -> None:
    """Write a job's output: its stdout on stdout and its stderr on stderr, byte for byte."""
    from cli.follow import INCOMPLETE, OutputCopy, bytes_of_lines, lacks_output
    from cli.model import LogEnd

    if tail and since:
        raise WrongUse("--tail and --since both say where to begin; give one of them")

    async def copy(market: "Market") -> LogEnd:
        job_id = await resolve_job(market, job)
        copy = OutputCopy(market, job_id, stderr_alone=stderr_alone, timestamps=timestamps)
        lines, tail_bytes = tail or (0, 0)
        if lines:
            tail_bytes = await bytes_of_lines(market, job_id, lines)
        return await copy.run(follow=follow, tail_bytes=tail_bytes, since_ms=since)

    end = session.ask(copy)
    if session.as_json:
        session.note_document(log_end=end)
    elif follow and lacks_output(end):
        session.note(INCOMPLETE)


@click.command()
@job_argument
@market_command
def wait(session: Session, job: str) -> None:
    """Wait for a job's end. The exit code is the job's own, as with `run`."""

    async def await_end(market: "Market") -> Job:
        return await market.wait_job(await resolve_job(market, job))

    ended = session.ask(await_end)
    tell_end(session, ended)
    sys.exit(exit_of_job(ended))


@click.command()
@job_argument
@market_command
def cancel(session: Session, job: str) -> None:
    """Ask for a job's end. It gets its grace period; nothing after this moment is charged."""
    from cli.render import words
    from runtime.ids import new_uuid

    request_id = str(new_uuid())

    async def ask(market: "Market") -> Job:
        return await market.cancel_job(await resolve_job(market, job), request_id)

    asked = session.ask(ask)
    session.answer(lambda: [f"{asked.job_id}: asked to stop; it is {words(asked.state)} now"], job=asked)


@click.command()
@job_argument
@click.option("--budget", type=CREDITS, default=0, help="So many credits more, held at once.")
@click.option("--time", "more_time", type=DURATION, default=0, help="So much more time, like 1h.")
@market_command
def extend(session: Session, job: str, budget: int, more_time: int) -> None:
    """Give a job that has not ended more money, more time, or both."""
    from cli.render import duration, in_credits
    from runtime.ids import new_uuid

    if not budget and not more_time:
        raise WrongUse("nothing to extend by: add --budget CREDITS, --time DURATION, or both")
    request_id = str(new_uuid())

    async def ask(market: "Market") -> Job:
        return await market.extend_job(await resolve_job(market, job), budget, more_time, request_id)

    now = session.ask(ask)
    session.answer(
        lambda: [
            f"{now.job_id}: at most {in_credits(now.spec.budget_micro)} and "
            f"{duration(now.spec.time_limit_ms)} now"
        ],
        job=now,
    )


@click.command()
@click.argument("job", metavar="[JOB]", default="", shell_complete=JOBS)
@click.option("--verify", is_flag=True, help="Compute every line again from its evidence.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Of a bill that was saved with --json; asks nobody.",
)
@market_command
def bill(session: Session, job: str, verify: bool, file: Path | None) -> None:
    """Show what a job has cost, record by record, with the evidence.

    With --file no coordinator is asked: what was saved verifies by itself.
    """
    from cli.screens import bill_screen
    from cli.verify import verify_bill

    async def get(market: "Market") -> Bill:
        return await market.get_bill(await resolve_job(market, job))

    if bool(job) == (file is not None):
        raise WrongUse("name a JOB, or a saved bill with --file; one of the two")
    found = _saved_bill(file) if file is not None else session.ask(get)
    verdict = verify_bill(found) if verify else None
    session.answer(lambda: bill_screen(found, verdict), bill=found, verdict=verdict)
    if verdict is not None and verdict.problems:
        sys.exit(Exit.BROKEN)


def _saved_bill(file: Path) -> Bill:
    from cli.saved import read_bill

    try:
        return read_bill(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongUse(f"{file} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise WrongUse(f"{file}: {error}") from error
