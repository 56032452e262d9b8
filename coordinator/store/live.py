"""What is live, in the very words of the partial indexes: a database uses those only where it sees them."""

from sqlalchemy import text

from coordinator.domain.states import ATTEMPT_LIVE, JOB_TERMINAL, JobState
from coordinator.store.tables import UNRELEASED, one_of

ONLY_LIVE_JOBS = text(one_of("job.state", set(JobState) - JOB_TERMINAL))
ONLY_LIVE_ATTEMPTS = text(one_of("attempt.state", ATTEMPT_LIVE))
# The host must still be told of them.
ONLY_UNRELEASED = text(f"({UNRELEASED})")
