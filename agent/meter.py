"""Cuts one attempt's run time into usage records."""

from collections.abc import Iterable

from agent.domain.attempt import Run
from agent.domain.gpu import GpuSample, GpuTally
from agent.domain.slices import SLICE_MS_MAX, slices
from agent.spool import UsageJournal
from runtime.clock import Clock

# Records stay this far behind a run that is seen to be alive: whoever runs it may learn of its end late, and
# a record can't be taken back.
MARGIN_MS = 250


class Meter:
    """Meters one run into its journal, from where the journal ends."""

    def __init__(
        self, *, run: Run, journal: UsageJournal, gpu_uuids: Iterable[str], clock: Clock, record_ms: int
    ) -> None:
        self._run = run
        self._journal = journal
        self._tally = GpuTally(gpu_uuids)
        self._clock = clock
        self._record_ms = record_ms

    def run_ms(self) -> int:
        """Run time so far. Never less than what is in the journal: time is not taken back."""
        return max(self._journal.end_ms, self._clock.boot_ms() - self._run.start_boot_ms)

    def due_in_ms(self) -> int:
        """How long until the next record is due: for all runs of a host at the same moments of its clock, so
        that their records go up in one message. The first of a run is the shorter for it."""
        metered_boot_ms = self._run.start_boot_ms + self._journal.end_ms
        due_boot_ms = (metered_boot_ms // self._record_ms + 1) * self._record_ms
        return max(0, due_boot_ms - self._run.start_boot_ms + MARGIN_MS - self.run_ms())

    def add(self, samples: Iterable[GpuSample]) -> None:
        self._tally.add(samples)

    async def cut(self, run_ms: int) -> None:
        """Record everything up to `run_ms` of run time."""
        metered_ms = self._journal.end_ms
        if run_ms - metered_ms <= 2 * self._record_ms:
            # A cut that is a little late gives a record that is a little longer, not a second, tiny one.
            pieces = list(slices(metered_ms, run_ms, SLICE_MS_MAX))
        else:
            # The agent was dead or the machine asleep: nobody looked at the GPUs for most of this time.
            self._tally.take()
            pieces = list(slices(metered_ms, run_ms, SLICE_MS_MAX))
            await self._journal.append([(start, end, self._tally.unknown()) for start, end in pieces])
            return
        if pieces:
            # Longer than a record may be: what was seen belongs to the first piece, the longer.
            uses = [self._tally.take(), *(self._tally.unknown() for _ in pieces[1:])]
            await self._journal.append(
                [(start, end, use) for (start, end), use in zip(pieces, uses, strict=True)]
            )
