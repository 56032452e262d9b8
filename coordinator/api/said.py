"""What a host was last told that it should hold, and whether there is more to tell."""

from collections.abc import Collection, Sequence

from coordinator.api import convert_host as convert
from coordinator.domain.job import Attempt, Job, JobSpec
from coordinator.domain.states import AttemptState
from coordinator.services.desired import Wanted
from coordinator.services.synchronize import Report
from coordinator.store.ports import Held
from usance.v1 import host_pb2 as h


class Said:
    def __init__(self) -> None:
        # None: until it is read, nothing is known that could be brought up to date.
        self.message: h.SynchronizeResponse | None = None
        # It is to be read; it is to be said again.
        self.is_stale, self.is_due = True, False
        self._reads = False
        # Attempts of the last message that was known; and those that have left it, for good.
        self._held: set[str] = set()
        self._left: set[str] = set()
        # The order in each, and how it was said: what is the same need not be put into words again.
        self._orders: dict[str, tuple[JobSpec, h.DesiredAttempt]] = {}

    def rung(self, held: Held | None) -> None:
        """After a commit that concerned the host."""
        if held is None or self._reads:
            self.is_stale = True
        elif held.whole:
            self.message, self.is_stale = h.SynchronizeResponse(desired=h.Desired()), False
            self._hold({attempt.id for attempt, _ in held.attempts})
            self._add(self.message, held)
        elif self.message is None or self.is_stale:
            self.is_stale = True
        else:
            self._held |= {attempt.id for attempt, _ in held.attempts}
            self._add(self.message, held)

    def _add(self, message: h.SynchronizeResponse, held: Held) -> None:
        message.desired.attempts.extend(self._said_of(attempt, job) for attempt, job in held.attempts)
        self.is_due = True

    def _said_of(self, attempt: Attempt, job: Job) -> h.DesiredAttempt:
        spec, said = self._orders.get(attempt.id, (None, None))
        if said is None or spec != job.spec:
            said = convert.wanted_to(
                Wanted(attempt=attempt, spec=job.spec, account_id=job.account_id, origin=job.origin)
            )
            self._orders[attempt.id] = job.spec, said
        else:
            convert.renew(said, attempt)
        return said

    def begin_to_read(self) -> None:
        self.is_stale = self.is_due = False
        self.message, self._reads = None, True

    def was_read(self, wanted: Sequence[Wanted], message: h.SynchronizeResponse) -> None:
        self.message, self._reads = message, False
        self._hold({each.attempt.id for each in wanted})

    def _hold(self, attempt_ids: set[str]) -> None:
        self._left |= self._held - attempt_ids
        self._held = attempt_ids
        for attempt_id in self._orders.keys() - attempt_ids:
            del self._orders[attempt_id]

    def renew(self, attempts: Sequence[Attempt]) -> bool:
        """Bring what was said up to date, if it was of these attempts; the order itself never changes."""
        said = {} if self.message is None else {w.attempt_id: w for w in self.message.desired.attempts}
        if self.message is None or said.keys() != {attempt.id for attempt in attempts}:
            return False
        for attempt in attempts:
            convert.renew(said[attempt.id], attempt)
        return True

    @property
    def holds_nothing(self) -> bool:
        """It should hold nothing, as far as we have heard and said: whatever changes that rings for us."""
        return not self.is_stale and self.message is not None and not self.message.desired.attempts

    def news(self, reports: Collection[Report]) -> list[Report]:
        """Without the ends of what it need not hold any more: it tells them until it has heard that."""
        if not self._left:
            return list(reports)
        self._left &= {report.attempt_id for report in reports} | self._held
        return [
            report
            for report in reports
            if report.attempt_id not in self._left or report.state is not AttemptState.ENDED
        ]
