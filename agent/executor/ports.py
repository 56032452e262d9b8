"""What the agent asks of whatever runs jobs.

Whatever is asked of a run (all but `prepare` and `start`) does not fail because what runs it is away for a
moment, as an engine is that restarts: it waits for it.

Every verb may be repeated: a repetition finds what the first call did. All but `prepare` and `start` work
after a restart of the agent, from the order alone.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from agent.domain.attempt import AttemptKey, EndReason, Isolation, JobOrder, OutputChunk, Run
from agent.domain.confidential import Confidential

Progress = Callable[[str], None]


class ExecutorError(Exception):
    """What should run jobs can't be used at all. The message says why, to a person."""


class StartError(Exception):
    """The job can't be started; `reason` says whose fault that is, the message says it to a person."""

    def __init__(self, reason: EndReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a run ended, as far as whoever ran it knows."""

    reason: EndReason
    detail: str
    # None where nobody saw the end: then only what was metered counts.
    run_ms: int | None
    exit_code: int | None


class Executor(Protocol):
    """Runs one command per attempt."""

    @property
    def isolation(self) -> Isolation:
        """The isolation it gives."""
        ...

    async def describe(self) -> str:
        """Its name and version, for people."""
        ...

    async def prepare(
        self, order: JobOrder, progress: Progress, confidential: Confidential | None = None
    ) -> None:
        """Fetch and make all that a start needs. Raises StartError; may be cancelled."""
        ...

    async def start(self, order: JobOrder, paid_through_ms: int) -> Run:
        """Start the command, once. Raises StartError."""
        ...

    async def find(self, order: JobOrder) -> Run | None:
        """The run of this order if it was ever started here, ended or not, and not destroyed since."""
        ...

    def output(self, order: JobOrder, offset: int) -> AsyncIterator[tuple[OutputChunk, ...]]:
        """Output from a byte offset on, as it comes; ends when all there will ever be was given."""
        ...

    async def discard_output(self, order: JobOrder, offset: int) -> None:
        """Output before this offset is kept elsewhere and will not be asked for again."""
        ...

    async def is_running(self, order: JobOrder) -> bool:
        """Is the command alive at this moment, as the kernel knows? False where nobody can tell."""
        ...

    async def wait(self, order: JobOrder) -> RunEnd:
        """The end of the run, when it comes; at once if it came already."""
        ...

    async def renew(self, order: JobOrder, paid_through_ms: int) -> None:
        """Move the moment at which the run is stopped even without the agent, where that is offered."""
        ...

    async def stop(self, order: JobOrder, grace_ms: int) -> None:
        """Ask the command to end, and kill it after the grace period. Does not wait for the end."""
        ...

    async def destroy(self, key: AttemptKey) -> None:
        """Kill and remove all that is left of the attempt. Nothing to remove is success."""
        ...

    async def held(self) -> frozenset[AttemptKey]:
        """All attempts of which something is here, whoever started them."""
        ...

    async def look(self) -> None:
        """Once every few seconds: see that what keeps jobs in still does, and put it right."""
        ...

    async def close(self) -> None:
        """Let go of connections. Runs go on."""
        ...
