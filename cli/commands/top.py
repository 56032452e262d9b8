"""`usance top`: what runs now, live."""

import asyncio
import shutil
import sys
from typing import TYPE_CHECKING

import click

from cli.commands.wanted import DURATION
from cli.errors import WrongUse
from cli.model import Job, JobState
from cli.session import Session, market_command

if TYPE_CHECKING:
    from cli.client.market import Market
    from cli.live import History

# As many as a screen has room for, and a coordinator does not mind being asked for.
JOBS_MAX = 50
EVERY_MS_MIN = 500
_HOME, _CLEAR_REST = "\x1b[H", "\x1b[J"
_CLEAR_ALL = "\x1b[2J"


@click.command()
@click.option("--every", type=DURATION, default="2s", help="How long between two looks [2s].")
@click.option("-n", "--count", type=click.IntRange(1), default=None, help="So many looks, then leave.")
@market_command
def top(session: Session, every: int, count: int | None) -> None:
    """Show your running jobs live: what they use, what they cost and how long they last. Ctrl-C leaves.

    Into a pipe or a file it looks once, unless --count says more.
    """
    if every < EVERY_MS_MIN:
        raise WrongUse(f"--every: at least {EVERY_MS_MIN}ms, for everybody's sake")
    live = sys.stdout.isatty() and not session.as_json and count != 1
    looks = count or (0 if live else 1)

    async def show(market: "Market") -> None:
        from cli.live import History

        history, looked = History(), 0
        while True:
            jobs = await _look(market)
            history.add(jobs)
            _show(session, jobs, history, live=live, first=not looked)
            looked += 1
            if looked == looks:
                return
            await asyncio.sleep(every / 1_000)

    try:
        session.ask(show)
    except KeyboardInterrupt:
        # The way out, not a mishap.
        sys.stdout.write("\n")


async def _look(market: "Market") -> list[Job]:
    """Those that run with how they go, which no list tells."""
    jobs: list[Job] = []
    async for job in market.list_jobs(live_only=True, page_size=JOBS_MAX):
        jobs.append(job)
        if len(jobs) == JOBS_MAX:
            break
    running = [job.job_id for job in jobs if job.state is JobState.RUNNING]
    found = {job.job_id: job for job in await asyncio.gather(*map(market.get_job, running))}
    return [found.get(job.job_id, job) for job in jobs]


def _show(session: Session, jobs: list[Job], history: "History", *, live: bool, first: bool) -> None:
    from cli.live import live_screen
    from cli.render import lay_out

    plain = "utf" not in (sys.stdout.encoding or "").lower()
    if not live:
        session.answer(lambda: live_screen(jobs, history, plain=plain), jobs=jobs)
        return
    width, height = shutil.get_terminal_size()
    screen = lay_out(live_screen(jobs, history, plain=plain), width)
    lines = [line[:width] for line in screen[: height - 1]]
    before = (_CLEAR_ALL if first else "") + _HOME
    sys.stdout.write(before + "".join(f"{line}\x1b[K\n" for line in lines) + _CLEAR_REST)
    sys.stdout.flush()
