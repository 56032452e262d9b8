"""The heart of it: run a command on somebody else's GPU as if it were here."""

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from cli.commands.market import look_around, plan_screen, show_quote
from cli.commands.wanted import job_options
from cli.errors import NotConfirmed, Unreachable
from cli.exits import Exit, exit_of_job
from cli.model import Event, Job, JobSpec
from cli.session import Session, market_command, say

if TYPE_CHECKING:
    from cli.client.market import Market
    from cli.follow import Left, Screen


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """How to go about a job, whatever it is."""
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="Show each usage record as it is billed."),
        click.option("--dry-run", is_flag=True, help="Only say what it would cost, like `usance quote`."),
        click.option("--detach", is_flag=True, help="Submit, print the job's id and leave."),
        click.option("-y", "--yes", is_flag=True, help="Agree to the price without being asked."),
    ):
        command = option(command)
    return command


@click.command(context_settings={"allow_interspersed_args": False})
@job_options
@run_options
@market_command
def run(session: Session, spec: JobSpec, yes: bool, detach: bool, dry_run: bool, verbose: bool) -> None:
    """Run COMMAND on a GPU of the market, and stay with it to its end.

    The job's stdout comes on stdout and its stderr on stderr, byte for byte; what usance itself has to say
    comes on stderr. The exit code is the job's own; docs/exit-codes.md lists those that are not.
    """
    carry_out(session, spec, yes=yes, detach=detach, dry_run=dry_run, verbose=verbose)


def carry_out(
    session: Session, spec: JobSpec, *, yes: bool, detach: bool, dry_run: bool, verbose: bool
) -> None:
    """Ask, submit, and stay with the job to its end, as far as each is wanted."""
    if dry_run:
        sys.exit(show_quote(session, spec))
    if not yes:
        _confirm(session, spec)
    if detach:
        job = _submit(session, spec)
        for notice in job.notices:
            session.note(notice)
        session.answer(lambda: [job.job_id], job=job)
        return
    sys.exit(_stay(session, spec, verbose=verbose))


def _confirm(session: Session, spec: JobSpec) -> None:
    from cli.render import lay_out

    if session.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotConfirmed("nobody is at a terminal to agree to the price; look at --dry-run, then add --yes")
    plan = plan_screen(spec, *look_around(session, spec))
    width = shutil.get_terminal_size().columns
    sys.stderr.write("".join(f"{line}\n" for line in lay_out(plan, width)))
    # Nothing is held yet, so Ctrl-C may simply end us. A handler of Python's can miss one that comes just
    # before it begins to read.
    former = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        agreed = click.confirm("Run it?", err=True)
    finally:
        signal.signal(signal.SIGINT, former)
    if not agreed:
        raise NotConfirmed("not submitted")


def _submit(session: Session, spec: JobSpec) -> Job:
    from runtime.ids import new_uuid

    request_id = str(new_uuid())
    with _money_at_stake(session, "the job may have been taken in; see: usance jobs"):
        return session.ask(lambda market: market.submit_job(spec, request_id))


@contextmanager
def _money_at_stake(session: Session, hint: str) -> Iterator[None]:
    """Whoever is cut off while credits are held must know where to look."""
    try:
        yield
    except KeyboardInterrupt:
        session.note(f"interrupted; {hint}")
        raise
    except Unreachable as error:
        raise Unreachable(f"{error}; {hint}") from error


def _stay(session: Session, spec: JobSpec, *, verbose: bool) -> int:
    from cli.follow import Left, follow_job
    from runtime.ids import new_uuid

    request_id = str(new_uuid())

    async def submit_and_follow(market: "Market") -> "tuple[str, Job | Left]":
        with _money_at_stake(session, "the job may have been taken in; see: usance jobs"):
            job = await market.submit_job(spec, request_id)
        _tell_submitted(session, job)
        with _money_at_stake(session, f"{job.job_id} goes on: usance logs -f {job.job_id}"):
            return job.job_id, await follow_job(market, job.job_id, make_screen(session, verbose=verbose))

    job_id, outcome = session.ask(submit_and_follow)
    if isinstance(outcome, Left):
        return tell_left(session, job_id, outcome)
    tell_end(session, outcome)
    return exit_of_job(outcome)


def _tell_submitted(session: Session, job: Job) -> None:
    session.note(f"{job.job_id} submitted")
    for notice in job.notices:
        session.note(notice)


def make_screen(session: Session, *, verbose: bool) -> "Screen":
    """Progress on stderr: sentences, or JSON lines."""
    from cli.follow import Screen
    from cli.screens import event_text, is_progress

    def tell(event: Event) -> None:
        if session.as_json:
            session.note_document(event=event)
        elif is_progress(event, verbose=verbose):
            say(event_text(event))

    return Screen(session.note, tell)


def tell_end(session: Session, job: Job) -> None:
    from cli.screens import end_line

    if session.as_json:
        session.note_document(job=job)
    else:
        say(end_line(job))


def tell_left(session: Session, job_id: str, left: "Left") -> Exit:
    why = "detached" if left.exit is Exit.INTERRUPTED else "nobody reads the output any more, so detached"
    session.note(f"{why}; {job_id} goes on: usance logs -f {job_id}, usance cancel {job_id}")
    return left.exit
